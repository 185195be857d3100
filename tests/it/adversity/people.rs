//! People edit the items of tasks that are running.

use std::time::Duration;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;

use crate::support::eventually;
use crate::support::program::{Process, Program};
use crate::support::world::{Item, World, config, n, outcomes, s, text};

/// Longer than anybody needs to edit a few items.
const PATIENT: Duration = Duration::from_secs(30);

/// Edits an item as the console does: reads it, and puts it again.
async fn edit(world: &World, id: &str, change: impl FnOnce(&mut Item)) -> Item {
    let mut item = world.item(id).await.expect("it is there");
    assert_eq!(text(&item, "status"), "RUNNING", "{id}");
    change(&mut item);
    world.put(item.clone()).await;
    item
}

fn set_status(item: &mut Item, status: &str) {
    item.insert("status".to_owned(), s(status));
}

/// The line with this event of this task.
async fn line_of(daemon: &Process, event: &str, id: &str) -> String {
    let (event, id) = (format!("\"event\":\"{event}\""), format!("\"task_id\":\"{id}\""));
    eventually(&format!("{event} of {id}"), async || {
        let lines = daemon.lines();
        let is_it = |line: &&String| line.contains(&event) && line.contains(&id);
        lines.iter().find(is_it).cloned().ok_or(lines)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_task_that_a_person_ends_or_deletes_stays_as_the_person_left_it() {
    let (world, gate) = World::gated(PATIENT).await;
    let program = Program::in_world(&world, &config());
    let daemon = program.start();
    for id in ["cancelled", "failed", "deleted"] {
        world.task(id).put().await;
    }
    world.until_running(3).await;
    let cancelled = edit(&world, "cancelled", |item| {
        set_status(item, "CANCELLED");
        item.remove("due");
    })
    .await;
    // Somebody who knows less of burstd leaves `due` where it is.
    let failed = edit(&world, "failed", |item| set_status(item, "FAILED")).await;
    let delete = world.client.delete_item().table_name("tasks").key("id", s("deleted"));
    delete.send().await.expect("it is deleted");
    gate.add_permits(1);
    for (id, left, found) in [
        ("cancelled", Some(cancelled), "CANCELLED, worker "),
        ("failed", Some(failed), "FAILED, worker "),
        ("deleted", None, "gone"),
    ] {
        let line = line_of(&daemon, "task.write_refused", id).await;
        assert!(line.contains(&format!("\"found\":\"{found}")), "{line}");
        assert_eq!(world.item(id).await, left, "{id}");
    }
    // What is to be done to them is done by then.
    world.task("another").put().await;
    world.until("another", "SUCCEEDED").await;
    assert_eq!(world.calls.count(), 4, "none ran again");
    assert_eq!(world.items().await.len(), 3, "and none was made anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_task_that_a_person_begins_anew_runs_again_when_it_has_ended() {
    let (world, gate) = World::gated(PATIENT).await;
    let program = Program::in_world(&world, &config());
    let daemon = program.start();
    for id in ["put again", "given back"] {
        world.task(id).with("payload", s("\"old\"")).put().await;
    }
    world.until_running(2).await;
    world.task("put again").with("payload", s("\"new\"")).put().await;
    edit(&world, "given back", |item| {
        set_status(item, "PENDING");
        item.remove("lease_until");
        item.insert("payload".to_owned(), s("\"new\""));
    })
    .await;
    gate.add_permits(1);
    for (id, expected) in [
        ("put again", vec!["1 succeeded"]),
        // Its first attempt is counted, and nobody may write how it ended.
        ("given back", vec!["1 abandoned", "2 succeeded"]),
    ] {
        line_of(&daemon, "task.write_refused", id).await;
        let item = world.until(id, "SUCCEEDED").await;
        assert_eq!(text(&item, "result"), "\"new\"", "{id}");
        assert_eq!(outcomes(&item), expected, "{id}");
        assert_eq!(world.calls.of(id).len(), 2, "{id}");
    }
    world.calls.assert_no_overlap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_writes_beside_a_running_task_is_kept_and_so_is_its_result() {
    let (world, gate) = World::gated(PATIENT).await;
    let program = Program::in_world(&world, &config());
    let daemon = program.start();
    let notes = [
        ("customer", AttributeValue::M(Item::from([("number".to_owned(), n("1.5"))]))),
        ("picture", AttributeValue::B(Blob::new([0, 255]))),
        ("tags", AttributeValue::Ss(vec!["a".to_owned(), "b".to_owned()])),
        ("nothing", AttributeValue::Null(true)),
    ];
    world.task("while it runs").with("payload", s("\"old\"")).put().await;
    let task = world.task("from the beginning").with("payload", s("\"old\""));
    let with_notes = notes.iter().fold(task, |task, (name, note)| task.with(name, note.clone()));
    with_notes.put().await;
    world.until_running(2).await;
    edit(&world, "while it runs", |item| {
        item.extend(notes.clone().map(|(name, note)| (name.to_owned(), note)));
        item.insert("payload".to_owned(), s("\"new\""));
        item.insert("max_attempts".to_owned(), n(7));
    })
    .await;
    gate.add_permits(1);
    for id in ["from the beginning", "while it runs"] {
        let item = world.until(id, "SUCCEEDED").await;
        line_of(&daemon, "task.succeeded", id).await;
        assert_eq!(text(&item, "result"), "\"old\"", "{id}");
        for (name, note) in &notes {
            assert_eq!(item.get(*name), Some(note), "{name} of {id}");
        }
    }
    let edited = world.item("while it runs").await.expect("it is there");
    assert_eq!([text(&edited, "payload"), text(&edited, "max_attempts")], ["\"new\"", "7"]);
    assert_eq!(world.calls.count(), 2);
}
