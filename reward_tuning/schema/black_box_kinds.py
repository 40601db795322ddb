"""The kinds of judges outside this process: a server, a program, a hosted model.

Each section is a kind as those of `reward_tuning.schema.judge_kinds` are, which lists them.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from reward_tuning.schema.judge_parts import TextSection
from reward_tuning.schema.values import Text
from reward_tuning.section import NotNegative, Positive

PARALLEL = "Requests at a time"
KEY_ENV = (
    "NAME of an environment variable whose value is sent as bearer token; the value is kept and "
    "shown nowhere; null = none"
)
FPS = "Frame rate of the mp4 files; null = that of the clips: 8, or the rate of each scored file"


def _address(url: str) -> str:
    """Check an address as the judge does, which imports torch through its package."""
    from rewards.core.endpoint import checked_url

    return checked_url(url)


def _base_address(url: str) -> str:
    from rewards.kinds.vlm import completions_url

    completions_url(url)
    return url


Url = Annotated[Text, AfterValidator(_address)]
BaseUrl = Annotated[Text, AfterValidator(_base_address)]
Variable = Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_]*$")]
Seconds = Annotated[float, Field(gt=0.0)]


class BlackBoxSection(TextSection):
    """A judge outside this process."""

    differentiable: ClassVar[bool] = False

    pairwise: bool = Field(
        default=False,
        description="Ask which of two clips of one prompt is better; a clip's score is its mean "
        "preference over the others of its prompt, minus 0.5. For training only",
    )
    both_orders: bool = Field(
        default=False,
        description="With pairwise: ask about each pair in both orders and average, against a "
        "judge that prefers a place; twice the requests",
    )

    @property
    def scores_alone(self) -> bool:
        """Not where it compares."""
        return not self.pairwise

    @model_validator(mode="after")
    def _asks_pairs(self) -> "BlackBoxSection":
        if self.both_orders and not self.pairwise:
            raise ValueError("both_orders is for pairs of clips; set pairwise, or leave it out")
        if self.pairwise and self.chunk is not None:
            raise ValueError("pairwise compares the clips of a batch; leave chunk out")
        if self.pairwise and self.prompt is not None:
            raise ValueError(
                "pairwise compares clips of one prompt, and with prompt all clips would have the "
                "same; leave prompt out"
            )
        return self


class HttpSection(BlackBoxSection):
    """A web server of yours that is sent each clip as mp4, and answers with its score."""

    kind: Literal["http"]
    url: Url = Field(
        description="Where clips are sent, such as http://localhost:8000/score; redirects to "
        "elsewhere are refused"
    )
    timeout: Seconds = Field(default=60.0, description="Seconds for a request")
    retries: NotNegative = Field(
        default=5, description="Tries after a failed one, after 1, 2, 4, ... 60 seconds"
    )
    batch: Positive = Field(default=1, description="Clips in a request; above 1, as lists")
    parallel: Positive = Field(default=4, description=PARALLEL)
    max_mb: float = Field(default=64.0, gt=0.0, description="Most megabytes of a request")
    fps: float | None = Field(default=None, gt=0.0, description=FPS)
    key_env: Variable | None = Field(default=None, description=KEY_ENV)

    @property
    def given_rate(self) -> float | None:
        """`fps`."""
        return self.fps

    @property
    def identity(self) -> str:
        """Its address."""
        return self.url

    @model_validator(mode="after")
    def _asks_one_pair(self) -> "HttpSection":
        if self.pairwise and self.batch > 1:
            raise ValueError(
                f"batch is {self.batch}, but a pairwise judge compares one pair in a request; "
                "leave it out"
            )
        return self


class CommandSection(BlackBoxSection):
    """A program of yours that is asked and answers in lines of JSON."""

    kind: Literal["command"]
    command: Annotated[list[Text], Field(min_length=1)] = Field(
        description="Program and arguments, as a list: [python, judge.py]. It is started with your "
        "rights and kept alive. The program, and an argument that is a file, may be relative to "
        "the recipe"
    )
    timeout: Seconds = Field(
        default=300.0, description="Seconds for an answer; the first includes the program's start"
    )
    retries: NotNegative = Field(
        default=2, description="Tries after a failed one; the program is started anew for each"
    )
    parallel: Positive = Field(default=1, description="Copies of the program")
    fps: float | None = Field(default=None, gt=0.0, description=FPS)

    @property
    def given_rate(self) -> float | None:
        """`fps`."""
        return self.fps

    @property
    def identity(self) -> str:
        """The command."""
        return " ".join(self.command)


class VlmSection(BlackBoxSection):
    """A vision-language model behind an OpenAI-style address that is asked about the frames."""

    kind: Literal["vlm"]
    url: BaseUrl = Field(
        description="Base address, such as http://localhost:8000/v1; /chat/completions is appended"
    )
    model: Text = Field(description="Name of the model, as the server knows it")
    key_env: Variable | None = Field(default=None, description=KEY_ENV)
    question: Text | None = Field(
        default=None,
        description="The question, with {prompt} where the prompt goes; null = the usual one of "
        "docs/black-box-judges.md",
    )
    answer: Literal["yes", "score"] = Field(
        default="yes",
        description="yes: probability of Yes against No in the first token (the server must give "
        "logprobs); score: the first number that it writes",
    )
    lowest: float = Field(
        default=1.0, description="With answer: score, the number that counts as 0"
    )
    highest: float = Field(
        default=10.0, description="With answer: score, the number that counts as 1"
    )
    image: Literal["png", "jpeg"] = Field(
        default="png", description="Format of the frames; jpeg is smaller and not exact"
    )
    timeout: Seconds = Field(default=120.0, description="Seconds for a request")
    retries: NotNegative = Field(
        default=5, description="Tries after a failed one, after 1, 2, 4, ... 60 seconds"
    )
    parallel: Positive = Field(default=4, description=PARALLEL)
    max_mb: float = Field(default=64.0, gt=0.0, description="Most megabytes of a request")

    @property
    def identity(self) -> str:
        """Its name and address: the same model with another question is no other judge."""
        return f"{self.model} at {self.url}"

    @model_validator(mode="after")
    def _reads_answer(self) -> "VlmSection":
        if self.pairwise and self.answer != "yes":
            raise ValueError("a pairwise judge answers with A or B; leave answer out")
        if self.lowest >= self.highest:
            raise ValueError(
                f"lowest is {self.lowest:g} and highest {self.highest:g}; lowest must be smaller"
            )
        return self


BLACK_BOXES: dict[str, type[BlackBoxSection]] = {
    "http": HttpSection,
    "command": CommandSection,
    "vlm": VlmSection,
}
"""Their sections, by kind."""
