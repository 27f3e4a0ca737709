//! Names that events carry: those that held then.

use std::sync::Arc;

use chrono::DateTime;

use super::testing::{FIRST, MadeUp, SIZE, TIMELINE, cluster, indexed, seed, summaries};
use super::update::{ListScope, read_names};
use super::*;
use crate::codec::seal;
use crate::postgres::catalog::{EventKind, Filter, Relation};
use crate::postgres::index::recordings::{self, NamesDescription};
use crate::postgres::layout::NamesId;
use crate::postgres::types::Lsn;
use crate::postgres::wal::RelFileLocator;
use crate::storage::{PutMode, Storage};

#[tokio::test]
async fn events_carry_the_names_that_held_then() {
    let made = MadeUp::new(seed("names"), 20);
    let (cluster, _) = cluster().await;
    let index = indexed(&cluster, &summaries(&made.segments()), 16);
    let file = |number| RelFileLocator {
        tablespace: 1663,
        database: 5,
        number,
    };
    let relation = |name: &str| {
        let (schema, name) = ("public".to_string(), name.to_string());
        RecordedName::Relation(Relation {
            oid: 20000,
            relkind: 'r',
            schema,
            name,
            table: None,
        })
    };
    let half = Lsn((FIRST + 10) * SIZE);
    let database = (
        RelFileLocator {
            tablespace: 0,
            database: 5,
            number: 0,
        },
        RecordedName::Database("shop".into()),
    );
    let mut first = Recording {
        timeline: TIMELINE,
        lsn: Lsn(0),
        names: vec![(file(20000), relation("orders")), database],
    };
    index.keep_new_names(&mut first).unwrap();
    assert_eq!(first.names.len(), 2);
    index
        .add_names("first", std::slice::from_ref(&first))
        .unwrap();
    let mut second = Recording {
        lsn: half,
        ..first.clone()
    };
    index.keep_new_names(&mut second).unwrap();
    assert_eq!(second.names, [], "nothing is new");
    second.names = vec![(file(20000), relation("old_orders"))];
    index.add_names("second", &[second]).unwrap();
    let filter = Filter {
        kinds: vec![EventKind::Delete],
        ..Filter::default()
    };
    let events = index.events(&filter).unwrap().events;
    let of_file = events
        .iter()
        .filter(|event| event.file == Some(file(20000)));
    for event in of_file {
        let expected = if event.lsn < half {
            "public.orders"
        } else {
            "public.old_orders"
        };
        assert_eq!(event.relation.as_deref(), Some(expected));
        assert_eq!(event.database.as_deref(), Some("shop"));
    }
    let named = Filter {
        relation: Some("orders".into()),
        ..filter
    };
    let found = index.events(&named).unwrap().events;
    assert!(
        found
            .iter()
            .all(|event| event.relation.as_deref() == Some("public.orders"))
    );
}

#[tokio::test]
async fn names_that_came_damaged_are_read_again_however_many_came_since() {
    let (cluster, storage) = cluster().await;
    let index = Arc::new(Index::temporary(&cluster).unwrap());
    let file = |number| RelFileLocator {
        tablespace: 0,
        database: number,
        number: 0,
    };
    let recording = |number: u32| {
        let about = NamesDescription {
            system_identifier: cluster.description.system_identifier,
            timeline: TIMELINE,
            lsn: Lsn(u64::from(number)),
            recorded_at: DateTime::UNIX_EPOCH,
        };
        let line = format!(
            "{{\"file\":{},\"database\":\"db{number}\"}}",
            serde_json::to_string(&file(number)).unwrap()
        );
        let sealed = seal(
            recordings::KIND,
            &about,
            &mut line.as_bytes(),
            line.len() as u64,
            1,
        )
        .unwrap();
        let time = DateTime::from_timestamp(i64::from(number), 0).unwrap();
        (
            cluster.layout.names(&NamesId::new(time, 0)),
            [sealed.envelope, sealed.body].concat(),
        )
    };
    let named = |number| {
        !name::names_of(&index.connection(), file(number))
            .unwrap()
            .is_empty()
    };
    let (damaged, whole) = recording(1);
    let _ = storage
        .put(
            &damaged,
            whole[..whole.len() - 1].to_vec().into(),
            PutMode::CreateOnly,
        )
        .await
        .unwrap();
    for number in 2..300 {
        let (key, object) = recording(number);
        let _ = storage
            .put(&key, object.into(), PutMode::CreateOnly)
            .await
            .unwrap();
    }
    read_names(&index, &cluster, ListScope::New).await.unwrap();
    assert!(named(2) && named(299) && !named(1));
    let _ = storage
        .put(&damaged, whole.into(), PutMode::Overwrite)
        .await
        .unwrap();
    read_names(&index, &cluster, ListScope::New).await.unwrap();
    assert!(named(1));
}
