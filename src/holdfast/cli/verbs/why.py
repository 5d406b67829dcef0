"""`holdfast why`: what happened under an id, where it stands, what blocks it, whose that is, and what can be done.

Asks every service's `/ops/why` (`operator.why`) and tells the story (`core.explain.story`). Exit code 0 if nothing
is left to happen, 1 if something is, or if a service does not answer.
"""

from datetime import UTC, datetime
from pathlib import Path

import msgspec

from holdfast.cli.options import CONFIGURED, Access, AsJson, Flag, say
from holdfast.core.explain.story import Story, ago, tell, trail_of
from holdfast.core.explain.trail import Trail
from holdfast.errors import ConfigInvalid, NotFound
from holdfast.operator.records import as_value
from holdfast.operator.why import gather


def why(
    id: str,
    *,
    tree: Flag = False,
    svg: Path | None = None,
    access: Access = CONFIGURED,
    as_json: AsJson = False,
) -> int:
    """Tell what happened under an id, in every service, and why it does not go on.

    For example:
    - `holdfast why order-4711`                      a correlation id, an idempotency key, or an aggregate's key

    - `holdfast why CheckoutSaga/01jd... --tree`     a saga; with every record, as a tree of causes

    - `holdfast why 01jd... --svg story.svg`         a transaction; drawn, one lane per service

    Parameters
    ----------
    id
        A correlation id, an idempotency key, a saga or another stream (Type/key), a key, a record (service@position)
        or a transaction.
    tree
        Also show every record, as a tree of causes.
    svg
        Also draw a timeline into this file.
    """
    if not id.strip():
        raise ConfigInvalid("the id is empty")
    settings = access.settings()
    found = gather(access.services(settings), id, settings)
    answers, silent, now = found.answers, found.silent, found.now
    if not any(answer.transactions or answer.waiting for answer in answers) and not silent:
        raise NotFound(
            f"no service knows {id[:200]!r}; it takes a correlation id, an idempotency key, a stream (Type/key), a key,"
            " a record (service@position) or a transaction"
        )
    trail = trail_of(answers)
    story = tell(id, answers, trail, silent, now, settings.owners())
    if svg is not None:
        from holdfast.core.explain.timeline import draw

        try:
            svg.write_text(draw(trail, {answer.service: answer.owner for answer in answers}), "utf-8")
        except OSError as error:
            raise ConfigInvalid(f"--svg {str(svg)!r}: {error.strerror}") from None
    text = shown(story, trail if tree else None, now)
    cut = [answer.service for answer in answers if answer.more or not answer.complete]
    text += "".join(f"\n! {service} knows more than is shown here" for service in cut)
    value = {**msgspec.to_builtins(story), "silent": silent, "trail": as_value(trail)}
    say(value, as_json=as_json, text=text)
    return 0 if story.settled else 1


def shown(story: Story, trail: Trail | None, now: int) -> str:
    """The story as text."""
    lines = [story.title]
    if story.happened:
        first = story.happened[0].at
        begun = datetime.fromtimestamp(first / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        lines += ["", f"what happened, from {begun}:"]
        lines += [f"  +{(line.at - first) / 1e6:9.3f} s  {line.text}" for line in story.happened]
    for name, found in (("where it stands", story.stands), ("what should come next", story.next)):
        if found:
            lines += ["", f"{name}:", *(f"  {text}" for text in found)]
    if story.blocks:
        lines += ["", "what blocks it:"]
        for block in story.blocks:
            since = f", for {ago(block.since, now)}" if block.since else ""
            lines.append(f"  {block.what}{since}  ({block.service}{f', {block.owner}' if block.owner else ''})")
    if story.repairs:
        lines += ["", "what can be done (add --dry-run to see what it would do):"]
        for repair in story.repairs:
            lines += [f"  {repair.command}", f"      {repair.does}"]
    if trail is not None:
        from holdfast.core.explain.tree import render

        lines += ["", render(trail)]
    return "\n".join(lines)
