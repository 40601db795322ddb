"""`reward-tuning votes`: add up the votes of the people who saw a report."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reward_tuning.cli.output import print_json, print_table

if TYPE_CHECKING:
    from reward_tuning.statistics.clustered_shares import Share
    from reward_tuning.statistics.vote_table import Control, VoteTable
    from reward_tuning.statistics.votes import Votes

COLUMNS = ("", "wins", "losses", "ties", "bad", "win rate", "verdict")


def votes(
    files: Annotated[
        list[Path], typer.Argument(help="Vote files, as saved by a report's vote page")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON")] = False,
) -> None:
    """Add up votes on a report: win rates and Bradley-Terry scores, with 95 % intervals.

    Control pairs, which show the base twice, give the voters' own noise.
    """
    from reward_tuning.statistics.vote_table import add_up
    from reward_tuning.statistics.votes import read_votes

    read = read_votes(files)
    table = add_up(read)
    if as_json:
        head = {"report": {"id": read.report, "title": read.title}, "replaced": read.replaced}
        print_json(head | asdict(table))
        return
    _print(read, table)


def _print(read: "Votes", table: "VoteTable") -> None:
    rows = [
        (
            side.name,
            *(str(count) for count in (side.wins, side.losses, side.ties, side.bad)),
            _share(side.win_rate),
            side.verdict,
        )
        for side in table.sides
    ]
    asked = f"{_count(table.votes, 'vote')} on {_count(table.prompts, 'prompt')}"
    title = f"{read.title or read.report}: {asked}"
    print_table(f"{title}, against {table.reference}", COLUMNS, rows)
    print("win rate: ties count as half, bad pairs not at all; in brackets: 95 % intervals")
    for side in table.sides:
        if side.score is not None:
            print(
                f"Bradley-Terry score of {side.name}, in log odds: {side.score.score:+.2f} "
                f"[{side.score.low:+.2f}, {side.score.high:+.2f}]"
            )
    if len(table.sides) > 1:
        print(f"{len(table.sides)} sides compared: verdicts allow for their number (Holm)")
    if read.replaced:
        do = "does" if read.replaced == 1 else "do"
        print(f"{_count(read.replaced, 'earlier vote')} on the same pairs {do} not count")
    print(f"control pairs: {_control(table.control)}")
    print(f"left was chosen on pairs of different sides: {_share(table.left)}")
    for voter in table.voters if len(table.voters) > 1 else ():
        print(
            f"{voter.name}: {_count(voter.votes, 'vote')}, {_count(voter.ties, 'tie')}, "
            f"{voter.bad} bad; control pairs: {_control(voter.control)}"
        )
    if (found := table.agreement) is not None:
        alpha = "" if found.alpha is None else f"; Krippendorff's alpha {found.alpha:.2f}"
        pairs = _count(found.pairs, "pair")
        print(f"alike votes on {pairs} of several voters: {_share(found.alike)}{alpha}")


def _control(control: "Control") -> str:
    if control.votes == 0:
        return "none, so the voters' own noise is not known"
    return (
        f"{_count(control.votes, 'vote')}; left {_share(control.left)} of those with a choice, "
        f"ties {_share(control.ties)}, {control.bad} bad"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _share(share: "Share | None") -> str:
    if share is None:
        return "-"
    return f"{100 * share.share:.0f} % [{100 * share.low:.0f}, {100 * share.high:.0f}]"
