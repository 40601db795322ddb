"""The methods' sections: one model a kind, whose keys are the keywords of the method's function."""

from typing import Annotated, Literal

from pydantic import Field, Strict

from reward_tuning.schema.values import NotNegative, Positive, Section

Rescale = Annotated[
    float,
    Field(
        ge=0.0,
        le=1.0,
        description="0 = each active step keeps its own Euler weight; 1 = the active steps "
        "together carry the weight of the whole chain",
    ),
]
SmallestStep = Annotated[
    float,
    Field(
        ge=0.0,
        le=1.0,
        description="Steps shorter than this share of the median are not counted as active: the "
        "last step of the published table alone is no gradient; 0 = count every step",
    ),
]


Nested = Annotated[
    float,
    Field(
        ge=0.0,
        le=1.0,
        description="Share of the gradient that flows on through the states; 1 = the chain rule. "
        "With sampling.negative: detached the sweep takes nested / guidance_scale",
    ),
]
NestedOfOne = Annotated[
    float,
    Field(
        ge=0.0,
        description="Share of the gradient that flows on through one step's input. With "
        "sampling.negative: detached the sweep takes nested / guidance_scale",
    ),
]


class DraftMethod(Section):
    """DRaFT (arXiv 2309.17400): gradient through every step.

    As with every method, the keys are the keywords of its function in
    `reward_tuning.gradient.methods`.
    """

    kind: Literal["draft"]
    nested: Nested = 1.0


class DraftKMethod(Section):
    """DRaFT-K (arXiv 2309.17400): gradient through the last K steps, states included."""

    kind: Literal["draft_k"]
    active_steps: Positive = Field(description="K, the last steps that receive gradient")
    nested: Nested = 1.0
    rescale: Rescale = 1.0
    smallest_step: SmallestStep = 0.25


class DraftLVMethod(Section):
    """DRaFT-LV (arXiv 2309.17400): the last step, and the end noised again n times."""

    kind: Literal["draft_lv"]
    copies: Positive = Field(default=2, description="n, fresh looks at the end")
    smallest_sigma: float = Field(
        default=0.05,
        gt=0.0,
        le=1.0,
        description="Lowest sigma that the copies are noised to, at least the table's last "
        "(0.0027), which is the paper's choice and gives next to no gradient",
    )
    rescale: Rescale = 1.0
    smallest_step: SmallestStep = 0.25


class AlignPropMethod(Section):
    """AlignProp (arXiv 2310.03739): DRaFT-K with K drawn anew for each update."""

    kind: Literal["alignprop"]
    truncation: Literal["uniform", "gaussian"] = Field(
        default="gaussian",
        description="Where the gradient is cut: gaussian around 0.84 of the steps, or uniform",
    )
    nested: Nested = 1.0
    rescale: Rescale = 1.0
    smallest_step: SmallestStep = 0.25


class DRTuneMethod(Section):
    """DRTune (arXiv 2405.00760): spaced steps, gradient stopped at the denoiser's input."""

    kind: Literal["drtune"]
    active_steps: Positive = Field(description="K, evenly spaced steps that receive gradient")
    early_stop: bool = Field(
        default=True,
        description="true = the reward reads the posterior mean at a stop drawn anew each time; "
        "false = it reads the true end of the chain",
    )
    stop_range: float = Field(
        default=0.4,
        gt=0.0,
        lt=1.0,
        description="An early stop lies in this last share of the steps, rounded",
    )
    rescale: Rescale = 1.0
    smallest_step: SmallestStep = 0.25


class ReFLMethod(Section):
    """ReFL (arXiv 2304.05977): one late step, the reward on its posterior mean."""

    kind: Literal["refl"]
    stop_range: float = Field(
        default=0.25,
        gt=0.0,
        le=1.0,
        description="The step lies in this last share of the steps",
    )


class FlowBPSparseMethod(Section):
    """FlowBP-Sparse (arXiv 2606.11075): random steps, late ones likelier, inputs detached."""

    kind: Literal["flowbp_sparse"]
    active_steps: Positive = Field(description="K, steps drawn for each update")
    lateness: float = Field(
        default=2.0, ge=0.0, description="Step i is drawn with weight (i + 1) ** lateness"
    )
    rescale: Rescale = 1.0
    smallest_step: SmallestStep = 0.25


class FlowBPBridgeMethod(Section):
    """FlowBP-Bridge (arXiv 2606.11075): sparse steps, gradient through the input of one."""

    kind: Literal["flowbp_bridge"]
    active_steps: Annotated[int, Field(ge=2)] = Field(
        default=5, description="K, the bridge and steps on both sides"
    )
    nested: NestedOfOne = 0.1
    lateness: float = Field(
        default=2.0,
        ge=0.0,
        description="On each side step m is drawn with weight m ** lateness",
    )
    rescale: Rescale = 1.0
    smallest_step: SmallestStep = 0.25


class FlowBPLagrangeMethod(Section):
    """FlowBP-Lagrange (arXiv 2606.11075): two leaps, each integrated through a few velocities."""

    kind: Literal["flowbp_lagrange"]
    order: Positive = Field(default=3, description="Velocities that a leap is integrated with")
    active_steps: Positive = Field(
        default=2, description="How many of a leap's velocities receive gradient, the first ones"
    )
    second_share: float = Field(
        default=0.25,
        ge=0.0,
        le=1.0,
        description="Gradient factor of the active velocities after a leap's first",
    )
    nested: NestedOfOne = 0.1
    rescale: float = Field(
        default=0.5,
        ge=0.0,
        le=1.0,
        description="0 = the active velocities of a leap keep their own weights; 1 = they carry "
        "the whole leap's",
    )
    leap_floor: float | None = Field(
        default=0.2,
        gt=0.0,
        description="tau: clips whose leaps stay near the rollout weigh more, up to 1 / (2 tau); "
        "null = equal weights",
    )
    concentration: Annotated[tuple[float, float, float] | None, Strict(False)] = Field(
        default=(2.5, 6.0, 2.0),
        description="Dirichlet concentration of the steps behind j, between k and j, and before "
        "k; null = every pair k < j equally likely",
    )
    longest_last_leap: int | None = Field(
        default=None, ge=2, description="Most steps from j to the end; null = any number"
    )
    tail: float = Field(
        default=1.0,
        gt=0.0,
        le=1.0,
        description="Share of the steps, counted from the end, that are trained",
    )


class LeapAlignMethod(Section):
    """LeapAlign (arXiv 2604.15311): two leaps over the chain, some gradient between them."""

    kind: Literal["leapalign"]
    nested: NestedOfOne = 0.3
    leap_floor: float | None = Field(
        default=0.1,
        gt=0.0,
        description="tau: clips whose leaps stay near the rollout weigh more, up to 1 / (2 tau); "
        "null = equal weights",
    )


class DirectAlignMethod(Section):
    """Direct-Align of SRPO (arXiv 2509.06942): noise the end, one model call, known noise off."""

    kind: Literal["direct_align"]
    stride: float = Field(
        default=0.022, gt=0.0, le=1.0, description="How far the one call goes, in sigma"
    )
    sigma_range: Annotated[tuple[float, float], Strict(False)] = Field(
        default=(0.75, 0.96), description="Where it starts, drawn uniformly; within (0, 1)"
    )
    discount: bool = Field(
        default=False,
        description="Weight looks by 3 s' / (1 + 2 s'), less at low noise; not in the paper",
    )


class PRFLMethod(Section):
    """PRFL (arXiv 2511.21541): rewards of kind latent judge a noisy state; nothing is decoded."""

    kind: Literal["prfl"]
    step_range: Annotated[tuple[float, float], Strict(False)] = Field(
        default=(0.0, 1.0),
        description="Part of the steps that the trained one is drawn from: 0 the first, 1 the last",
    )


class EasyAnimateMethod(Section):
    """EasyAnimate's published reward script: its strategies, without rescale."""

    kind: Literal["easyanimate"]
    strategy: Literal["last", "tail", "uniform", "random"] = Field(
        default="tail", description="Its --backprop_strategy"
    )
    active_steps: Positive = Field(default=10, description="Its --backprop_num_steps")
    first_step: NotNegative = Field(default=0, description="Its --backprop_random_start_step")
    last_step: NotNegative | None = Field(
        default=None, description="Its --backprop_random_end_step, included; null = the last"
    )
    stop_input_gradient: bool = Field(
        default=False, description="Its --stop_latent_model_input_gradient"
    )
    steps_list: Annotated[tuple[NotNegative, ...] | None, Strict(False)] = Field(
        default=None,
        description="Its --backprop_step_list: these steps every time, in place of the strategy",
    )


Method = Annotated[
    DraftMethod
    | DraftKMethod
    | DraftLVMethod
    | AlignPropMethod
    | DRTuneMethod
    | ReFLMethod
    | LeapAlignMethod
    | FlowBPSparseMethod
    | FlowBPBridgeMethod
    | FlowBPLagrangeMethod
    | DirectAlignMethod
    | PRFLMethod
    | EasyAnimateMethod,
    Field(discriminator="kind"),
]
