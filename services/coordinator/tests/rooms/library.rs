//! Libraries through their doors, and what becomes of the tables of lookups in object storage.

use anyhow::Result;
use host::Host;
use testkit::{World, eventually};
use wire::coordinator::{
    DeleteStream, DescribeItem, Expected, ItemBody, ItemChange, ItemPlace, ItemsOf, ListItems, Lookup, Page, PutItem,
    ReserveUpload, StreamName, TextLanguage, UploadOf, UploadPlace, View,
};

use crate::stage::{SOON, caller, coordinator, create, index, new, store_doors};

async fn upload(host: &Host) -> Result<UploadPlace> {
    let place = host.bus.call::<ReserveUpload>(&(), &UploadOf { index: index("shop") }).await?;
    host.objects.put_if_absent(&place.key(), b"a table".as_slice().into()).await?;
    Ok(place)
}

fn hosts(place: UploadPlace) -> ItemChange {
    let (digest, title) = ("00".to_owned(), String::new());
    let body = ItemBody::Lookup(Lookup { place, digest, bytes: 7, rows: 1, columns: Vec::new(), title });
    ItemChange { index: index("shop"), name: "hosts".parse().unwrap(), body, expected: Expected::Any }
}

async fn gone(host: &Host, place: UploadPlace) {
    eventually(SOON, async || matches!(host.objects.head(&place.key()).await, Ok(None))).await;
}

#[actix_rt::test]
async fn items_survive_their_leader_and_go_with_their_index() -> Result<()> {
    let world = World::start().await?;
    let set = ["coordinator.library_delay=1s"];
    let leader = coordinator(&world, "a", &set).await?;
    let host = caller(&world).await?;
    let (_store, _doors) = store_doors(&host).await?;
    create(&host, &new("shop", 1)).await?;
    let (first, second, never) = (upload(&host).await?, upload(&host).await?, upload(&host).await?);
    host.bus.call::<PutItem>(&(), &hosts(first)).await?;
    let view = View { text: "SELECT * FROM shop".to_owned(), language: TextLanguage::Sql, title: String::new() };
    let view = ItemChange { name: "all".parse()?, body: ItemBody::View(view), ..hosts(first) };
    let put = host.bus.call::<PutItem>(&(), &view).await?;
    assert_eq!(host.bus.call::<PutItem>(&(), &view).await?, put, "a repeat");
    let replaced = host.bus.call::<PutItem>(&(), &hosts(second)).await?;
    gone(&host, first).await;
    let of = ItemsOf { index: index("shop"), kind: None, after: None, limit: Page(1) };
    let page = host.bus.call::<ListItems>(&(), &of).await?;
    assert_eq!((page.items, page.more), (vec![put], true));
    leader.stop().await?;

    let leader = coordinator(&world, "b", &set).await?;
    let place = ItemPlace { index: index("shop"), name: "hosts".parse()? };
    let found = host.bus.call::<DescribeItem>(&(), &place).await?;
    assert_eq!(found, replaced);
    for kept in [second, never] {
        assert!(host.objects.head(&kept.key()).await?.is_some(), "{kept:?} is named, or may still be");
    }
    host.bus.call::<DeleteStream>(&(), &StreamName { index: index("shop") }).await?;
    assert_eq!(host.bus.call::<DescribeItem>(&(), &place).await.unwrap_err().kind, "UnknownIndex");
    gone(&host, second).await;
    gone(&host, never).await;
    create(&host, &new("shop", 1)).await?;
    let of = ItemsOf { limit: Page::default(), ..of };
    assert_eq!(host.bus.call::<ListItems>(&(), &of).await?.items, []);
    leader.stop().await?;
    Ok(())
}
