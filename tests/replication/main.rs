//! The replication connection against real servers of every major that is there.

mod server;

use server::{Server, majors};
use walden::postgres::replication::{BackupEvent, BackupOptions, Checkpoint, ConnInfo, Connection, Mode};

#[tokio::test]
async fn smoke() {
    for (major, _) in majors() {
        let server = Server::start(major, "", "");
        let mut sql = server.sql().await;
        let r = sql.simple_query("SELECT 1 AS a, NULL AS b; SELECT 'x' AS c").await.unwrap();
        println!("{r:?}");
        let e = sql.simple_query("SELECT 1/0").await.unwrap_err();
        println!("{e:#}");
        sql.simple_query("SELECT 1").await.unwrap();
        let mut rep =
            Connection::connect(&ConnInfo::from_process(&server.dsn()).unwrap(), Mode::Physical).await.unwrap();
        println!("{:?}", rep.identify_system().await.unwrap());
        println!("{:?}", rep.show("wal_segment_size").await.unwrap());
        println!("{:?}", rep.timeline_history(walden::postgres::types::TimelineId(1)).await.unwrap());
        let mut b = rep
            .base_backup(&BackupOptions {
                label: "l'a".into(),
                checkpoint: Checkpoint::Fast,
                progress: true,
                max_rate_kib: None,
                verify_checksums: true,
                tablespace_map: true,
            })
            .await
            .unwrap();
        let mut n = 0;
        while let Some(e) = b.next().await.unwrap() {
            match e {
                BackupEvent::Data(d) => n += d.len(),
                other => println!("{other:?}"),
            }
        }
        println!("{n}");
        drop(b);
        println!("{:?}", rep.identify_system().await.unwrap());
        rep.close().await.unwrap();
    }
}
