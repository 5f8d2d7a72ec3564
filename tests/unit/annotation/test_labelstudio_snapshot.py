"""What changed between two looks at a project."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from annotation.labelstudio.snapshot import Changes, Snapshot, diff

IDS = st.sampled_from([f"1:{number}" for number in range(6)])
SNAPSHOTS = st.builds(
    Snapshot,
    st.dictionaries(IDS, st.sampled_from("abc")),
    st.dictionaries(st.sampled_from("xyz"), st.integers(1, 3)),
)


@given(SNAPSHOTS, SNAPSHOTS)
def test_changes_lead_from_one_snapshot_to_the_other(before: Snapshot, after: Snapshot) -> None:
    changes = diff(before, after)
    rebuilt = {id: time for id, time in before.annotations.items() if id not in changes.deleted}
    rebuilt |= {id: after.annotations[id] for id in (*changes.new, *changes.updated)}
    assert rebuilt == dict(after.annotations)
    assert set(changes.new).isdisjoint(before.annotations)
    assert set(changes.updated) <= before.annotations.keys() & after.annotations.keys()
    assert all(after.tasks.get(item) != before.tasks[item] for item in changes.gone)


@given(SNAPSHOTS)
def test_nothing_changed_is_no_change(snapshot: Snapshot) -> None:
    assert diff(snapshot, snapshot) == Changes()
