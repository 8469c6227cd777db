//! State that clients share: synchronizers and tables, with many writers at once.

use client::{Apply, RowChange, RowCondition};
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use types::Token;

use crate::shared::installation;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Sum(u64);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Add(u64);

impl Apply<Add> for Sum {
    fn apply(&mut self, add: &Add) {
        self.0 += add.0;
    }
}

#[tokio::test]
async fn every_update_of_eight_replicas_is_applied_once() {
    let cluster = installation().await;
    let (scope, name) = ("tests".parse().unwrap(), Token::new("sum").unwrap());
    let add = async |replica: u64| {
        let client = cluster.client(&format!("gateway/s{replica}")).await.unwrap();
        let mut sum = client.synchronizer::<Sum, Add>(&scope, &name, Sum::default()).await.unwrap();
        for _ in 0..20 {
            assert!(sum.update(|_| Some(vec![Add(1)])).await.unwrap());
        }
    };
    join_all((0..8).map(add)).await;
    let client = cluster.client("gateway/reader").await.unwrap();
    let mut sum = client.synchronizer::<Sum, Add>(&scope, &name, Sum::default()).await.unwrap();
    assert_eq!((sum.fetch().await.unwrap().0, sum.revision()), (160, 160));
}

#[tokio::test]
async fn changes_of_one_primary_key_are_made_together_or_not_at_all() {
    let cluster = installation().await;
    let client = cluster.client("gateway/tables").await.unwrap();
    let table = client.table(&"tests".parse().unwrap(), &Token::new("accounts").unwrap()).await.unwrap();
    table.insert(b"bank", b"a", "100").await.unwrap();
    table.insert(b"bank", b"b", "0").await.unwrap();
    assert!(table.insert(b"bank", b"a", "7").await.is_err(), "it is there");
    let transfer = async |_: u64| {
        for _ in 0..5 {
            loop {
                let number = async |key: &[u8]| -> (i64, _) {
                    let entry = table.get(b"bank", key).await.unwrap().unwrap();
                    (String::from_utf8_lossy(&entry.value).parse().unwrap(), entry.version)
                };
                let ((a, version_a), (b, version_b)) = (number(b"a").await, number(b"b").await);
                let changes = [
                    RowChange::put(b"a", (a - 1).to_string()).on(RowCondition::Version(version_a)),
                    RowChange::put(b"b", (b + 1).to_string()).on(RowCondition::Version(version_b)),
                ];
                if table.change(b"bank", &changes).await.is_ok() {
                    break;
                }
            }
        }
    };
    join_all((0..4).map(transfer)).await;
    for (key, value) in [(b"a", "80"), (b"b", "20")] {
        assert_eq!(table.get(b"bank", key).await.unwrap().unwrap().value, value);
    }
}
