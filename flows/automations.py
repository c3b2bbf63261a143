"""Automations on a Prefect server that stays: dead flow runs are marked as crashed, and a webhook is told of ends."""

from urllib.parse import urlsplit
from uuid import UUID

from prefect.blocks.notifications import CustomWebhookNotificationBlock, SlackWebhook
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes, ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

SILENCE = 90
"""Seconds without a heartbeat (one is sent every 30) after which a flow run counts as crashed."""

_OURS = ResourceSpecification({"prefect.resource.role": "tag", "prefect.resource.id": "prefect.tag.degla"})


def mark_crashed(ends: tuple[str, ...]) -> None:
    """Flow runs whose heartbeat stays away, and that did not end in one of the known ways, become Crashed."""
    beat = "prefect.flow-run.heartbeat"
    trigger = EventTrigger(
        posture=Posture.Proactive,
        after={beat},
        expect={beat, *(f"prefect.flow-run.{end.capitalize()}" for end in ends)},
        match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
        for_each={"prefect.resource.id"},
        threshold=1,
        within=SILENCE,
    )
    action = ChangeFlowRunState(state=StateType.CRASHED, message=f"no heartbeat for {SILENCE} seconds")
    _put("degla crashed", trigger, action)


def notify(address: str, ends: tuple[str, ...]) -> None:
    """Every flow run of degla that ends so is told to a webhook: its name and the line it ended with.

    Args:
        address: of a Slack webhook, or of any other, which gets {"text": ...} by POST. Kept encrypted by the server.
        ends: of "completed", "failed", "crashed", "cancelled".
    """
    trigger = EventTrigger(
        posture=Posture.Reactive,
        expect={f"prefect.flow-run.{end.capitalize()}" for end in ends},
        match_related=_OURS,
        threshold=1,
        within=0,
    )
    action = SendNotification(
        block_document_id=_webhook(address),
        subject="degla {{ flow_run.name }}: {{ flow_run.state.name }}",
        body="{{ flow_run.state.message }}",
    )
    _put("degla notify", trigger, action)


def _webhook(address: str) -> UUID:
    """The block that knows how to talk to that address."""
    host = urlsplit(address).hostname or ""
    block = (
        SlackWebhook(url=address)
        if host.startswith("hooks.slack")
        else CustomWebhookNotificationBlock(
            name="degla", url="{{address}}", json_data={"text": "{{subject}}\n{{body}}"}, secrets={"address": address}
        )
    )
    return UUID(str(block.save("degla-notify", overwrite=True)))


def _put(name: str, trigger: EventTrigger, action: ActionTypes) -> None:
    """Create an automation, or make the one of that name like this."""
    wanted = AutomationCore(name=name, trigger=trigger, actions=[action])
    with get_client(sync_client=True) as client:
        there = client.read_automations_by_name(name)
        if there:
            client.update_automation(there[0].id, wanted)
        else:
            client.create_automation(wanted)
