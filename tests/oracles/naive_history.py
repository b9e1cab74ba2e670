"""Histories by their definition: for one event, loops over all events of the same user."""


def others(events, place):
    """Items of the user of this event, without the event's own."""
    return {int(events.item[i]) for i in range(len(events)) if i != place and events.user[i] == events.user[place]}


def earlier(events, place, length):
    """Items of the user of this event from strictly before it: the most recent ones, the last `length` of them.

    Of two events in one second the one with the larger item row counts as the more recent one.
    """
    found = [
        (int(events.time[i]), int(events.item[i]))
        for i in range(len(events))
        if events.user[i] == events.user[place] and events.time[i] < events.time[place]
    ]
    return {item for _, item in sorted(found)[-length:]}
