"""What is left to do in a system in virtual time, as sentences: what keeps it from being settled.

`VirtualSystem.settle` waits until nothing is left. It asks stores and nodes what they hold, and changes nothing. Fails
with StoreError if a service has just crashed.
"""

from collections.abc import Mapping

from holdfast.runtime.node import Node
from holdfast.testing.simulation.store import VirtualStore


async def left_of(name: str, node: Node, nodes: Mapping[str, Node], stores: Mapping[str, VirtualStore]) -> list[str]:
    """What one service still has to do; messages from a service that is down are not known."""
    left = [f"{name}: {slot.stream} waits: {slot.message.error}" for slot in node.waiting.slots()]
    left += [f"{name}: {stream} is being tried" for stream in node.retrier.streams_tried]
    sagas = node.dispatch.sagas
    if node.writer.shut:
        left.append(f"{name} reads its store again")
    if sagas.open > len(sagas.stuck) or node.writer.waiting:
        left.append(f"{name}: {sagas.open} sagas open, {node.writer.waiting} works wait")
    conversations = node.conversations.conversations
    if left:
        halted = [(peer, one.failure) for peer, one in conversations.items() if one.state.halted]
        return left + [f"{name}: it does not go on with {peer}: {failure}" for peer, failure in halted]
    cursors = await stores[name].cursors()
    for sender, other in stores.items():
        after = cursors[f"exchange:{sender}"].position if f"exchange:{sender}" in cursors else 0
        if sender in nodes and other.sends(name, after):
            failure = conversations[sender].failure if sender in conversations else None
            left.append(f"{name}: something of {sender} is on its way" + (f": {failure}" if failure else ""))
    for feed in node.feeds.subscriptions:
        source = stores.get(feed.producer)
        if source is None or feed.producer not in nodes:
            continue
        types = nodes[feed.producer].service.contract.with_newer(feed.wants)
        if (await source.read(feed.position, 1, kinds=("event",), types=types)).records:
            left.append(f"{name}: {feed.cursor_name} stands at {feed.position}: {feed.failure}")
    return left
