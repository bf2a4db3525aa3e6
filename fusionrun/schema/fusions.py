"""Fusions: how the experts' features become one vector, by `type`.

Owns what a recipe may say of a fusion and what follows from it without torch: the sizes its
torch module is built with, the names and shapes of its tensors.

A new type is one torch file and one section class. The torch class subclasses
`fusionrun.models.fusions.base.FeatureFusion` and says `join`; the section class subclasses
`FeatureFusion` here:

    class Mean(FeatureFusion):
        '''The mean of the features.'''

        module = "my_package.mean:Mean"
        formula = "1/E Σ f_i"

        type: Literal["mean"]
        '''Mean.'''

A join with tensors of its own lists them in `join_blueprint`; one whose result is not as wide as
`dim` says so in `joined_dim`. Here it is added to `FUSIONS`; another package offers it as an
entry point of the group `fusionrun.fusions` (`mean = "my_package.schema:Mean"`).
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fusionrun.blueprint import Tensor, layer_norm, linear, under
from fusionrun.schema.base import AUTO, Count, OrAuto, Section
from fusionrun.schema.kinds import Kinds

Width = Annotated[Count, OrAuto()]
Dropout = Annotated[float, Field(ge=0, lt=1)]


class Fusion(Section):
    """Base of every fusion.

    Its methods want every `auto` resolved. `widths` are the experts' `input_dim`s in the
    recipe's order.
    """

    module: ClassVar[str]
    """The torch fusion, as `package.module:Class`."""
    formula: ClassVar[str]
    """How it joins features f_i or logits z_i, for people."""
    uses_features: ClassVar[bool] = True
    """Whether it joins features. If not, it joins the heads' logits, and there is no global head
    to train."""

    type: str
    """How the experts are joined."""
    feature_norm: Annotated[Literal["fusion", "shared"], OrAuto()] = AUTO
    """fusion: a LayerNorm inside the fusion only; shared: also one at each expert's output, which
    its head sees too."""

    def module_args(
        self, widths: tuple[int, ...], num_classes: int, cross_expert_attention: bool
    ) -> dict[str, Any]:
        """Keyword arguments of the torch fusion: numbers and tuples of numbers."""
        raise NotImplementedError

    def blueprint(
        self, widths: tuple[int, ...], num_classes: int, cross_expert_attention: bool
    ) -> dict[str, Tensor]:
        """Every tensor of the torch fusion, as in its `state_dict`."""
        raise NotImplementedError

    def global_head_blueprint(self, num_classes: int) -> dict[str, Tensor]:
        """Every tensor of the global head behind it."""
        raise NotImplementedError


class FeatureFusion(Fusion):
    """Base of the fusions that join features to a vector of `dim` numbers.

    What they share: projections of other widths, a LayerNorm for each expert, and Linear → ReLU →
    Dropout → Linear behind the join.
    """

    dim: Width = AUTO
    """Width D of the features as they are joined, and of the fused vector."""
    hidden_dim: Width = AUTO
    """Width of the hidden layer behind the join."""
    dropout: Annotated[Dropout, OrAuto()] = AUTO
    """Dropout behind the join."""

    def joined_dim(self, num_experts: int) -> int:
        """Width of what the join gives."""
        return self.dim

    def join_blueprint(self, num_experts: int, cross_expert_attention: bool) -> dict[str, Tensor]:
        """Tensors of the join itself, cross-expert attention before it included."""
        return under("attention", attention(self.dim)) if cross_expert_attention else {}

    def module_args(
        self, widths: tuple[int, ...], num_classes: int, cross_expert_attention: bool
    ) -> dict[str, Any]:
        """Sizes of `fusionrun.models.fusions.base.FeatureFusion`."""
        return {
            "widths": widths,
            "dim": self.dim,
            "hidden_dim": self.hidden_dim,
            "dropout": self.dropout,
            "cross_expert_attention": cross_expert_attention,
        }

    def blueprint(
        self, widths: tuple[int, ...], num_classes: int, cross_expert_attention: bool
    ) -> dict[str, Tensor]:
        """Projections, norms, join and the two Linears behind it."""
        tensors: dict[str, Tensor] = {}
        for number, width in enumerate(widths):
            if width != self.dim:
                tensors |= linear(f"projections.{number}", width, self.dim)
        tensors |= layer_norm("norm", len(widths), self.dim)
        tensors |= self.join_blueprint(len(widths), cross_expert_attention)
        tensors |= linear("hidden", self.joined_dim(len(widths)), self.hidden_dim)
        return tensors | linear("output", self.hidden_dim, self.dim)

    def global_head_blueprint(self, num_classes: int) -> dict[str, Tensor]:
        """One Linear on the fused vector."""
        return linear("", self.dim, num_classes)


def attention(dim: int) -> dict[str, Tensor]:
    """Tensors of attention between experts: queries, keys and values in one, and the output."""
    return {**linear("qkv", dim, 3 * dim), **linear("output", dim, dim)}


class Multiplicative(FeatureFusion):
    """The product of the features."""

    module: ClassVar[str] = "fusionrun.models.fusions.multiplicative:Multiplicative"
    formula: ClassVar[str] = "Π f_i"

    type: Literal["multiplicative"]
    """Product."""


class MultiplicativeAddition(FeatureFusion):
    """The product of the features plus their sum."""

    module: ClassVar[str] = (
        "fusionrun.models.fusions.multiplicative_addition:MultiplicativeAddition"
    )
    formula: ClassVar[str] = "Π f_i + Σ f_i"

    type: Literal["multiplicativeAddition"]
    """Product plus sum."""


class TransformerBase(FeatureFusion):
    """An encoder over the experts as tokens, mean-pooled."""

    module: ClassVar[str] = "fusionrun.models.fusions.transformer_base:TransformerBase"
    formula: ClassVar[str] = "mean of encoder(f_1, …, f_E)"

    type: Literal["TransformerBase"]
    """Encoder over the experts as tokens."""
    num_heads: Annotated[Count, OrAuto()] = AUTO
    """Attention heads; they divide dim."""
    num_layers: Annotated[Count, OrAuto()] = AUTO
    """Encoder layers."""

    def module_args(
        self, widths: tuple[int, ...], num_classes: int, cross_expert_attention: bool
    ) -> dict[str, Any]:
        """Sizes of `fusionrun.models.fusions.transformer_base.TransformerBase`."""
        common = super().module_args(widths, num_classes, cross_expert_attention)
        return {**common, "num_heads": self.num_heads, "num_layers": self.num_layers}

    def join_blueprint(self, num_experts: int, cross_expert_attention: bool) -> dict[str, Tensor]:
        """Embeddings, the encoder's layers and its last norm."""
        layer = self._layer_blueprint(cross_expert_attention)
        tensors = {"embedding": Tensor((num_experts, self.dim))}
        for number in range(self.num_layers):
            tensors |= under(f"layers.{number}", layer)
        return tensors | layer_norm("encoder_norm", self.dim)

    def _layer_blueprint(self, cross_expert_attention: bool) -> dict[str, Tensor]:
        dim = self.dim
        alone = {**linear("value", dim, dim), **linear("output", dim, dim)}
        return {
            **layer_norm("attention_norm", dim),
            **under("attention", attention(dim) if cross_expert_attention else alone),
            **layer_norm("feed_forward_norm", dim),
            **linear("expand", dim, 4 * dim),
            **linear("contract", 4 * dim, dim),
        }


class Concatenation(FeatureFusion):
    """The features side by side."""

    module: ClassVar[str] = "fusionrun.models.fusions.concatenation:Concatenation"
    formula: ClassVar[str] = "[f_1, …, f_E]"

    type: Literal["concatenation"]
    """Concatenation."""

    def joined_dim(self, num_experts: int) -> int:
        """D for each expert."""
        return num_experts * self.dim


class SimpleAddition(FeatureFusion):
    """The sum of the features."""

    module: ClassVar[str] = "fusionrun.models.fusions.simple_addition:SimpleAddition"
    formula: ClassVar[str] = "Σ f_i"

    type: Literal["simpleAddition"]
    """Sum."""


class MultiplicativeShifted(FeatureFusion):
    """The product of the features, each shifted by one."""

    module: ClassVar[str] = "fusionrun.models.fusions.multiplicative_shifted:MultiplicativeShifted"
    formula: ClassVar[str] = "Π (1 + f_i)"

    type: Literal["multiplicativeShifted"]
    """Product of one plus each."""


class BoundedProduct(FeatureFusion):
    """A product whose factors stay between 0 and 2, so that many experts cannot make it explode."""

    module: ClassVar[str] = "fusionrun.models.fusions.bounded_product:BoundedProduct"
    formula: ClassVar[str] = "Π (1 + tanh(W_i f_i))"

    type: Literal["boundedProduct"]
    """Product of learned factors between 0 and 2."""

    def join_blueprint(self, num_experts: int, cross_expert_attention: bool) -> dict[str, Tensor]:
        """All W_i in one tensor."""
        common = super().join_blueprint(num_experts, cross_expert_attention)
        return {**common, "factors": Tensor((num_experts, self.dim, self.dim))}


class ProductOfExperts(Fusion):
    """The product of the experts' probabilities: no features are joined, nothing is trained."""

    module: ClassVar[str] = "fusionrun.models.fusions.product_of_experts:ProductOfExperts"
    formula: ClassVar[str] = "Σ log softmax(z_i)"
    uses_features: ClassVar[bool] = False

    type: Literal["productOfExperts"]
    """Sum of the heads' log-probabilities."""

    def module_args(
        self, widths: tuple[int, ...], num_classes: int, cross_expert_attention: bool
    ) -> dict[str, Any]:
        """None: it has no sizes."""
        return {}

    def blueprint(
        self, widths: tuple[int, ...], num_classes: int, cross_expert_attention: bool
    ) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def global_head_blueprint(self, num_classes: int) -> dict[str, Tensor]:
        """Nothing: the sum is the global path's logits."""
        return {}


FUSIONS: Kinds[Fusion] = Kinds(
    "type",
    {
        "multiplicative": Multiplicative,
        "multiplicativeAddition": MultiplicativeAddition,
        "TransformerBase": TransformerBase,
        "concatenation": Concatenation,
        "simpleAddition": SimpleAddition,
        "multiplicativeShifted": MultiplicativeShifted,
        "boundedProduct": BoundedProduct,
        "productOfExperts": ProductOfExperts,
    },
    group="fusionrun.fusions",
)
