"""What a recipe may say of a fusion, and a fusion that another package brings."""

import subprocess
import sys
from typing import Annotated

import pytest
from pydantic import TypeAdapter, ValidationError

from fusionrun.schema.fusions import FUSIONS, Fusion

ADAPTER = TypeAdapter(Annotated[Fusion, FUSIONS])
ORIGIN = (
    "multiplicative",
    "multiplicativeAddition",
    "TransformerBase",
    "concatenation",
    "simpleAddition",
    "multiplicativeShifted",
)


def test_the_kinds_are_the_origins_six_and_two_more():
    assert FUSIONS.names() == (*ORIGIN, "boundedProduct", "productOfExperts")


@pytest.mark.parametrize("kind", FUSIONS.names())
def test_every_kind_needs_nothing_but_its_type(kind):
    fusion = ADAPTER.validate_python({"type": kind})
    rest = {k: v for k, v in fusion.model_dump().items() if k != "type"}
    assert set(rest.values()) == {"auto"}


@pytest.mark.parametrize("kind", FUSIONS.names())
def test_every_kind_says_what_it_does(kind):
    found = FUSIONS.find(kind)
    assert found.formula
    assert found.__doc__
    assert found.uses_features == (kind != "productOfExperts")


@pytest.mark.parametrize("key", ["dim", "hidden_dim", "dropout"])
def test_product_of_experts_has_no_sizes(key):
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        ADAPTER.validate_python({"type": "productOfExperts", key: 1})


@pytest.mark.parametrize("key", ["num_heads", "num_layers"])
def test_only_the_transformer_has_heads_and_layers(key):
    ADAPTER.validate_python({"type": "TransformerBase", key: 2})
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        ADAPTER.validate_python({"type": "multiplicative", key: 2})


@pytest.mark.parametrize(
    "wrong", [{"dim": 0}, {"hidden_dim": 0}, {"dropout": 1.0}, {"feature_norm": "both"}]
)
def test_values_out_of_bounds_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        ADAPTER.validate_python({"type": "concatenation", **wrong})


SCHEMA = '''
from typing import Literal
from fusionrun.schema.fusions import FeatureFusion

class Mean(FeatureFusion):
    """The mean of the features."""

    module = "mean_fusion.torch_part:Mean"
    formula = "1/E Σ f_i"

    type: Literal["mean"]
    """Mean."""
'''
TORCH = """
from fusionrun.models.fusions.base import FeatureFusion, fill

class Mean(FeatureFusion):
    def join(self, tokens, missing):
        return fill(tokens, missing, 0).mean(1)
"""
SCRIPT = """
import sys
from typing import Annotated
from pydantic import TypeAdapter
from fusionrun.blueprint import fusion_component
from fusionrun.schema.fusions import FUSIONS, Fusion

assert FUSIONS.names()[-1] == "mean", FUSIONS.names()
keys = {"type": "mean", "dim": 4, "hidden_dim": 3, "dropout": 0.0}
fusion = TypeAdapter(Annotated[Fusion, FUSIONS]).validate_python(keys)
blueprint = fusion_component(fusion, (4, 5), 2, False)
assert "torch" not in sys.modules

import torch
from fusionrun.models.build import ExpertSpec, FusionSpec, build_network
from fusionrun.schema.experts import MLP

experts = []
for width in (4, 5):
    mlp = MLP(model="mlp", view="v", features=width)
    experts.append(ExpertSpec(f"e{width}", mlp.module, mlp.module_args((3,)), (3,), False))
spec = FusionSpec(fusion.module, fusion.module_args((4, 5), 2, False))
net = build_network(experts, spec, num_classes=2, seed=0)
state = {name: tuple(t.shape) for name, t in net.components()["fusion"].state_dict().items()}
assert state == {name: t.shape for name, t in blueprint.items()}, state
print(tuple(net([torch.randn(6, 3)] * 2).global_logits.shape))
"""


@pytest.fixture
def site(tmp_path):
    """A folder with an installed package that offers a fusion type as an entry point."""
    package, info = tmp_path / "mean_fusion", tmp_path / "mean_fusion-1.0.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").write_text("")
    (package / "schema.py").write_text(SCHEMA, encoding="utf-8")
    (package / "torch_part.py").write_text(TORCH)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mean-fusion\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fusionrun.fusions]\nmean = mean_fusion.schema:Mean\n")
    return tmp_path


def test_another_package_can_bring_a_fusion(site):
    start = f"import sys; sys.path.insert(0, {str(site)!r})\n"
    done = subprocess.run(
        [sys.executable, "-c", start + SCRIPT], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "(6, 2)\n"), done.stderr


def test_the_schema_imports_no_torch_and_no_numpy():
    script = (
        "import sys, fusionrun.blueprint, fusionrun.schema.experts, fusionrun.schema.fusions\n"
        "print([name for name in ('torch', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
