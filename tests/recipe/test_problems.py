"""What a wrong recipe is answered with, compared whole: place, source line, got, expected, fix."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fusionrun.cli.main import make_app
from fusionrun.errors import RecipeError, UserError
from fusionrun.nearest import nearest
from fusionrun.recipe.read import Source, read_recipe
from fusionrun.recipe.suggest import FOREIGN_NAMES, fix_for_key, key_of_plan, some_of
from fusionrun.schema.describe import all_keys, describe, spot_of

BASE = """\
version: 1
name: small
data: {source: npz, path: digits.npz}
experts:
  a: {model: mlp, view: v}
  b: {model: cnn, view: w}
fusion: {type: concatenation}
"""

# What is wrong; text below the base; settings. The answers stand in problems.txt.
CASES: list[tuple[str, str, list[str]]] = [
    ("an unknown key near a known one", "training: {epoch: 5}", []),
    ("an unknown key of another section", "training: {temperature: 4}", []),
    ("an unknown key of the top of the recipe", "training: {seed: 3}", []),
    ("a name of another tool", "learning_rate: 1e-3", []),
    ("an unknown key like no other", "colour: red", []),
    ("an unknown key among many", "slurm: {gpus: 1}", []),
    ("a key of another kind", "schedulers: {experts: {type: CosineAnnealingLR, gamma: 3}}", []),
    ("a slip of a key of another kind", "schedulers: {experts: {type: StepLR, T_maxx: 3}}", []),
    ("a key of another fusion", "", ["fusion.num_heads=4"]),
    ("a key of another expert", "", ["experts.b.hidden=[3]"]),
    (
        "a key of another form of split",
        "",
        ["data.split={folds: 5, train: 0.8}"],
    ),
    ("a misspelt tag", "schedulers: {experts: {tpye: StepLR, gamma: 0.5}}", []),
    ("an unknown kind", "", ["fusion.type=multiplicatve"]),
    ("an unknown kind and a key of none", "schedulers: {fusion: {type: Step, gama: 1}}", []),
    ("a missing key", "stages: [{stage: joint}]", []),
    ("a missing path", "", ["data={source: npz}"]),
    ("a rule without scale", "learning_rates:\n  rules:\n    - when: {input_dim: {gt: 5}}\n", []),
    ("a rule that scales nothing", "learning_rates: {rules: [{when: {}, scale: {}}]}", []),
    ("text for a number", "training: {epochs: many}", []),
    ("a number in quotes", 'learning_rates: {base_lr: "1e-3"}', []),
    ("a number for text", "slurm: {time: 90}", []),
    ("a number with a point for a whole one", "training: {batch_size: 1e2}", []),
    ("yes for true", "slurm: {requeue: yes}", []),
    ("true for a version", "", ["version=true"]),
    ("a scalar for a mapping", "training: epochs", []),
    ("a list for a mapping", "slurm: [gpu]", []),
    ("nothing for a mapping", "training:", []),
    ("a number below its bound", "training: {epochs: 0}", []),
    ("a number outside of its range", "augmentation: {mixup: {alpha: 1, probability: 1.5}}", []),
    ("a number that is infinite", "learning_rates: {head_lr: .inf}", []),
    ("auto where nothing is resolved", "training: {epochs: auto}", []),
    ("a slip of auto", "learning_rates: {head_lr: atuo}", []),
    ("a word of a few", "knowledge_transfer: {teacher: peer}", []),
    ("a wrong item of a list", "evaluation: {metrics: [accuracy, f1]}", []),
    ("a list too short", "training: {optimizer: {betas: [0.9]}}", []),
    ("an empty list", "evaluation: {metrics: []}", []),
    (
        "a wrong item where text may stand too",
        "learning_rates: {rules: [{when: {fusion_type: [1]}, scale: {head_lr: 2}}]}",
        [],
    ),
    ("a union of types", "slurm: {gpus_per_node: -1}", []),
    ("a setting with an unknown key", "", ["training.epoch=5"]),
    ("a setting with an unknown expert", "", ["experts.c.features=5"]),
    ("a setting with a slip of an expert", "", ["experts.A.features=5"]),
    ("a setting with a wrong value", "", ["seed=1", "training.epochs=-5"]),
    ("a setting with a wrong type", "", ["training.epochs=[5]"]),
    (
        "problems of file and settings",
        "seed: -1\nslurm: {nodes: 0, tme: 3}\n",
        ["training.epochs=0", "fusion.type=sum"],
    ),
    (
        "expert names that differ in case",
        "",
        ["experts={a: {model: mlp, view: v}, A: {model: mlp, view: v}}"],
    ),
    ("an expert named like a path of the tables", "", ["experts={global: {model: mlp, view: v}}"]),
    ("no experts", "", ["experts={}"]),
    ("both ways to ask for GPUs", "slurm: {gres: gpu:1, gpus_per_node: 1}", []),
    ("both ways to ask for memory", "slurm: {mem: 16G, mem_per_cpu: 2G}", []),
    ("split fractions that do not sum to 1", "", ["data.split={train: 0.6, val: 0.3, test: 0.2}"]),
    ("a fold that is not there", "", ["data.split={folds: 5, fold: 5}"]),
    ("a zip of unequal lengths", "sweep: {zip: {seed: [0, 1], training.epochs: [5]}}", []),
    ("a time that is none", "slurm: {time: 24h}", []),
    ("an amount of memory that is none", "slurm: {mem: 16 GB}", []),
    ("a model of a collection with a blank", "", ["experts.a={model: 'timm:a b', view: v}"]),
    ("weights of a run without an expert", "", ["experts.a.weights=run:x"]),
]


def golden() -> dict[str, str]:
    text = Path(__file__).with_name("problems.txt").read_text("utf-8")
    blocks = re.split(r"^== (.*)\n", text, flags=re.MULTILINE)
    return dict(zip(blocks[1::2], (block.strip("\n") for block in blocks[2::2]), strict=True))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(text: str, settings: list[str] | None = None) -> Source:
    Path("r.yaml").write_text(text, "utf-8")
    return read_recipe(Path("r.yaml"), settings or [])


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("what", "text", "settings"), CASES, ids=[case[0] for case in CASES])
def test_each_kind_of_problem_reads_as_agreed(what: str, text: str, settings: list[str]) -> None:
    with pytest.raises(RecipeError, match="  expected  ") as caught:
        read(BASE + text, settings)
    assert str(caught.value) == golden()[what]


def test_every_agreed_answer_belongs_to_a_case() -> None:
    assert list(golden()) == [what for what, _, _ in CASES]


@pytest.mark.usefixtures("here")
def test_problems_come_in_the_order_of_the_file_and_then_of_the_settings() -> None:
    with pytest.raises(RecipeError, match="seed") as caught:
        read(f"seed: -1\n{BASE}slurm: {{nodes: 0}}\n", ["training.epochs=0"])
    keys = [problem.key for problem in caught.value.problems]
    assert keys == ["seed", "slurm.nodes", "training.epochs"]


# --- names


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "name",
    ["", " ", "-a", "_a", "a b", "a/b", "../a", "a.b", "é", "a\\nb", "$(x)", "a" * 65, "a]", "~"],
)
def test_an_experts_name_that_no_path_could_carry_is_refused_at_its_key(name: str) -> None:
    with pytest.raises(RecipeError, match="a name: letters, digits, _ and -, at most 64") as caught:
        read(BASE.replace("  a:", f'  "{name}":'))
    (problem,) = caught.value.problems
    assert problem.place is not None
    assert (problem.place.line, problem.place.column) == (5, 3)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", ["a", "0", "A-b_c", "a" * 64, "fusion", "global_head", "str"])
def test_an_experts_name_of_letters_and_digits_is_taken(name: str) -> None:
    recipe = read(BASE.replace("  a:", "  x:").replace("  b:", f'  "{name}":')).recipe
    assert list(recipe.experts) == ["x", name]


@pytest.mark.usefixtures("here")
def test_names_that_differ_in_case_are_refused_beside_other_problems() -> None:
    with pytest.raises(RecipeError, match="names that differ by more than upper") as caught:
        read(BASE.replace("  b:", "  A:") + "seed: -1\n")
    assert [problem.key for problem in caught.value.problems] == ["experts.A", "seed"]


# --- Slurm's own forms


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("time", ["90", "02:00:00", "100:00:00", "1-12", "1-12:30", "1-0:0:0"])
def test_a_time_that_slurm_takes_is_taken_as_written(time: str) -> None:
    slurm = read(f'{BASE}slurm: {{time: "{time}"}}').recipe.slurm
    assert slurm is not None
    assert slurm.time == time


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "time", ["24h", "", "1:2:3:4", "1d", "-1", "1-", "02:00:00 ", "٢:00", "1:\\n30"]
)
def test_a_time_that_slurm_refuses_is_refused(time: str) -> None:
    with pytest.raises(RecipeError, match='a time such as "02:00:00"'):
        read(f'{BASE}slurm: {{time: "{time}"}}')


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("slurm", "words"),
    [
        ("time: '1:30'", r'for 90 seconds: "01:30:00" in hours and minutes, "00:01:30" in min'),
        ("time: 24h", 'here "24:00:00"'),
        ("time: 1.5h", 'here "01:30:00"'),
        ("time: 2 d", 'here "48:00:00"'),
        ("time: 90min", 'here "01:30:00"'),
        ("mem: 1.5G", 'here "1536M"'),
        ("mem: 16 GB", 'here "16G"'),
        ("mem_per_cpu: 500MiB", 'here "500M"'),
        ("mem: 0.001K", 'a whole amount such as "16G" or "500M"$'),
        ("python: python3", "an absolute path, or one that begins with ~/"),
        ("template: mine.j2", "an absolute path, or one that begins with ~/"),
        ("container: {image: a.sif}", "an absolute path or an address such as docker://"),
    ],
)
def test_what_slurm_would_misread_comes_with_what_to_write(slurm: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        read(f"{BASE}slurm: {{{slurm}}}")


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("text", ["", "a\\nb", "a\\tb"])
def test_text_for_a_line_of_a_script_must_be_one_line(text: str) -> None:
    with pytest.raises(RecipeError, match="printable text on one line"):
        read(f'{BASE}slurm: {{setup: ["{text}"]}}')


# --- suggestions


@pytest.mark.parametrize("name", FOREIGN_NAMES)
def test_a_name_of_another_tool_leads_to_a_key_of_this_one(name: str) -> None:
    known = {*all_keys(), "learning_rates.experts.NAME"}
    assert name == name.casefold()
    assert FOREIGN_NAMES[name] in known


@pytest.mark.parametrize(
    ("key", "section", "fix"),
    [
        (
            "learning_rate",
            "",
            "'learning_rate' is not known here; 'learning_rates.base_lr' sets it",
        ),
        ("lr", "experts.a", "'lr' is not known here; 'learning_rates.experts.a' sets it"),
        ("backbone", "experts.a", "did you mean 'model'?"),
        ("models", "experts.a", "did you mean 'model'?"),
        ("output_dim", "experts.a", "did you mean 'features'?"),
        ("LR", "training", "'LR' is not known here; 'learning_rates.base_lr' sets it"),
        ("batch", "training", "did you mean 'batch_size'?"),
        ("seed", "training", "'seed' is not known here; 'seed' at the top of the recipe sets it"),
        ("epochs", "", "'epochs' is not known here; 'training.epochs' sets it"),
        ("epoch", "", "'epoch' is not known here; 'training.epochs' sets it"),
        ("dropout", "", "'dropout' is not known here; 'fusion.dropout' sets it"),
        ("type", "", "'type' is not known here; 'fusion.type' sets it"),
        ("features", "", "'features' is not known here; 'experts.NAME.features' sets it"),
        ("heads", "schedulers", "a head follows its expert: 'schedulers.experts' sets both"),
        ("head", "schedulers", "a head follows its expert: 'schedulers.experts' sets both"),
        (
            "heads",
            "learning_rates",
            "a head follows its expert: 'learning_rates.experts' sets both",
        ),
        ("colour", "training", "remove 'colour'"),
        ("colour", "", "remove 'colour', or write it as 'x-…' if it is a note"),
    ],
)
def test_an_unknown_key_is_answered_with_what_was_meant(key: str, section: str, fix: str) -> None:
    kind = {"experts": {"a": {"model": "mlp"}}}
    spot = spot_of(tuple(section.split(".")) if section else (), kind)
    assert spot is not None
    valid = spot.keys({"model": "mlp"})
    assert fix_for_key(key, section, valid) == fix


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("setting", "fix"),
    [
        ("training.epochs=1_000", "write 1000: a number has no underscores"),
        ("training.epochs='1_000'", "write 1000: a number has no underscores"),
        ("training.epochs='1000'", "remove the quotes: a quoted number is text"),
        ("training.epochs=١٢", "write digits 0 to 9"),
        ("learning_rates.base_lr=1_0e-3", "write 10e-3: a number has no underscores"),
        ("learning_rates.base_lr=inf", ""),
    ],
)
def test_text_that_is_nearly_a_number_comes_with_what_to_write(setting: str, fix: str) -> None:
    with pytest.raises(RecipeError, match="expected  a") as caught:
        read(BASE, [setting])
    (problem,) = caught.value.problems
    assert problem.fix == fix


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("base_lr", "learning_rates.base_lr"),
        ("lr", "learning_rates.base_lr"),
        ("base_lrr", "learning_rates.base_lr"),
        ("epochs", "training.epochs"),
        ("colour", None),
        ("walltime", None),
    ],
)
def test_a_bare_word_means_a_key_that_ends_with_it(word: str, meant: str | None) -> None:
    keys = ["experts.a.freeze.until.epochs", "training.epochs", "learning_rates.base_lr"]
    assert key_of_plan(word, keys) == meant


@pytest.mark.usefixtures("here")
def test_a_bare_word_after_why_is_answered_with_the_full_key() -> None:
    text = BASE.replace("digits.npz", "package:handwritten_digits").replace(
        "model: cnn", "model: mlp"
    )
    Path("r.yaml").write_text(text.replace("view: v", "view: fourier").replace("w}", "zernike}"))
    result = CliRunner().invoke(make_app(), ["plan", "r.yaml", "--why", "base_lr"])
    assert result.exit_code == 2
    assert "did you mean 'learning_rates.base_lr'?" in result.stderr


def test_at_least_one_is_said_once() -> None:
    spot = spot_of(("data", "views"), {"data": {"source": "csv"}})
    assert spot is not None
    assert describe(spot) == "a mapping from names to a list: text; at least one"


@pytest.mark.parametrize(
    ("name", "valid", "found"),
    [
        ("multiplicatve", ["multiplicativeAddition", "multiplicative"], "multiplicative"),
        ("batchSize", ["batch_size", "epochs"], "batch_size"),
        ("eq", ["ge", "eq"], "eq"),
        ("qe", ["ge", "gt", "eq"], "ge"),
        ("concat", ["concatenation", "simpleAddition"], "concatenation"),
        ("Transformer", ["concatenation", "TransformerBase"], "TransformerBase"),
        ("x", ["a", "b"], None),
        ("", ["a"], None),
        ("a" * 100_000, ["a", "aa"], None),
        ("a", [], None),
    ],
)
def test_the_nearest_name_is_the_one_with_the_fewest_slips(
    name: str, valid: list[str], found: str | None
) -> None:
    assert nearest(name, valid) == found


def test_of_many_names_the_nearest_are_shown_in_their_own_order() -> None:
    names = [f"{letter}{letter}{letter}" for letter in "zyxwvutsrqponm"]
    assert some_of(names, "mmm").split(", ")[-2:] == ["mmm", "…"]
    assert len(some_of(names, "mmm").split(", ")) == 13


@pytest.mark.parametrize("section", ["slurm", "training", "fusion", "data", "experts"])
def test_what_is_expected_is_never_a_list_of_more_than_twelve_names(section: str) -> None:
    spot = spot_of((section,), {})
    assert spot is not None
    assert describe(spot).count(", ") <= 12


# --- files


@pytest.mark.usefixtures("here")
def test_a_recipe_that_is_not_there_is_answered_with_the_nearest_file() -> None:
    Path("digits.yaml").write_text(BASE, "utf-8")
    with pytest.raises(UserError, match=r"digit\.yaml: no such file; did you mean digits\.yaml\?"):
        read_recipe(Path("digit.yaml"))


def test_a_directory_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a directory; expected a recipe's YAML file"):
        read_recipe(tmp_path)


@pytest.mark.usefixtures("here")
def test_notes_are_kept_in_the_text_and_not_in_the_recipe() -> None:
    source = read(f"x-notes: {{anything: [1]}}\n{BASE}")
    assert source.text.startswith("x-notes")
    assert source.recipe.name == "small"


@pytest.mark.usefixtures("here")
def test_a_later_setting_wins_over_an_earlier_one() -> None:
    assert read(BASE, ["seed=1", "seed=2"]).recipe.seed == 2
