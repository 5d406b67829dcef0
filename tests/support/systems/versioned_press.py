"""A press whose messages have had two versions, and desks that read it: for tests of releases and deployments."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec

from holdfast import Command, Contract, Event, Service, System, answer, decide, evolve, step
from holdfast.testing import VirtualSystem


def press(version: int) -> SimpleNamespace:
    """A press as it was first, and as it is since its events and commands tell the run."""
    contract = Contract("press")
    service = Service(contract)
    if version == 1:

        @contract.event
        class Printed(Event):
            title: str

        @contract.command(key="title")
        class Print(Command[Printed]):
            title: str

    else:

        @contract.event(version=2, upcasts={1: lambda old: {**old, "run": 1}})
        class Printed(Event):
            title: str
            run: int

        @contract.command(key="title", version=2, upcasts={1: lambda old: {**old, "run": 1}})
        class Print(Command[Printed]):
            title: str
            run: int

    @contract.event
    class Cleaned(Event):
        title: str

    @contract.command(key="title")
    class Clean(Command[Cleaned]):
        title: str

    @service.aggregate
    class Plate:
        prints: int = 0

        @decide(creates=True)
        def do_print(self, command: Print) -> Printed:
            return Printed(*(getattr(command, field) for field in command.__struct_fields__))

        @decide(creates=True)
        def clean(self, command: Clean) -> Cleaned:
            return Cleaned(command.title)

        @evolve
        def printed(self, event: Printed) -> None:
            self.prints += 1

        @evolve
        def cleaned(self, event: Cleaned) -> None: ...

    return SimpleNamespace(service=service, Print=Print, Printed=Printed, Clean=Clean, version=version)


desk = Contract("desk")


@desk.event
class Filed(Event):
    title: str


@desk.command(key="title")
class File(Command[Filed]):
    title: str


@desk.event
class Thanked(Event):
    title: str


@desk.command(key="title")
class Thank(Command[Thanked]):
    title: str


def reader(of: SimpleNamespace) -> Service:
    """A desk that files what was printed by a reaction, thanks for it by a saga, and counts it in a view."""
    service, Printed = Service(desk), of.Printed

    @service.aggregate
    class Folder:
        filed: int = 0
        thanked: int = 0

        @decide(creates=True)
        def file(self, command: File) -> Filed:
            return Filed(command.title)

        @decide(creates=True)
        def thank(self, command: Thank) -> Thanked:
            return Thanked(command.title)

        @evolve
        def on_filed(self, event: Filed) -> None:
            self.filed += 1

        @evolve
        def on_thanked(self, event: Thanked) -> None:
            self.thanked += 1

    @service.reaction
    def keep(event: Printed) -> File:
        return File(event.title)

    @service.view
    class Titles:
        prints: int = 0
        runs: int = 0

        @evolve(key=lambda event: event.title)
        def on_printed(self, event: Printed) -> None:
            self.prints += 1
            self.runs += getattr(event, "run", 0)

    return service


def with_saga(service: Service, of: SimpleNamespace) -> Service:
    Printed = of.Printed

    @service.saga
    class Thanking:
        begun: Printed

        @step
        def thank(self) -> Thank:
            return Thank(self.begun.title)

    return service


def author(of: SimpleNamespace) -> SimpleNamespace:
    """Somebody who has things printed, by a saga that waits for the press's answer."""
    contract, Print, ask = Contract("author"), of.Print, print_of(of)
    service = Service(contract)

    @contract.event
    class Published(Event):
        title: str

    @contract.command(key="title")
    class Publish(Command[Published]):
        title: str

    @service.saga
    class Publishing:
        publish: Publish

        @step
        def bring(self) -> Print:
            return ask(self.publish.title)

        @answer
        def done(self) -> Published:
            return Published(self.publish.title)

    return SimpleNamespace(service=service, Publish=Publish, Published=Published)


def print_of(of: SimpleNamespace) -> Callable[[str], Any]:
    """A command to print, of that version."""
    return lambda title: of.Print(title) if of.version == 1 else of.Print(title, 2)


def together(one: Service, other: Service) -> VirtualSystem:
    return VirtualSystem(System([one, other], name="print shop"))


async def deploy(system: VirtualSystem, service: Service) -> None:
    """In the place of what runs under its name."""
    system.services[service.name] = service
    await system.restart(service.name)


def titles(system: VirtualSystem, name: str) -> list[str]:
    """What a kind of event at the desk is about, in order."""
    return [msgspec.json.decode(one.data)["title"] for one in system.log("desk") if one.type == f"desk.{name}.v1"]


async def seen(system: VirtualSystem, title: str) -> tuple[int, int]:
    """What the view has of a title: prints, and runs told."""
    row = (await system.client.query("desk", "Titles", title)).row
    return row["prints"], row["runs"]
