//! Where the tests of this crate take place: a real nats-server, object storage, a client, and doors behind which tests play the
//! services.

#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

pub(crate) mod reading;
pub(crate) mod writing;

use std::time::Duration;

use bus::{Bus, BusOptions, Door, Doors, Incoming};
use client::Client;
use testkit::World;
use wire::{Call, Problem, Service};

/// How long a test waits for what must happen.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// A world with a client in it, and nobody who answers yet.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) bus: Bus,
    pub(crate) client: Client,
    pub(crate) objects: store::Objects,
    open: Vec<Door>,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let world = World::start().await.unwrap();
        let bus = connect(&world, world.nats.url()).await;
        let objects = store::Objects::open(&world.objects_url()).unwrap();
        Self { client: Client::new(bus.clone(), objects.clone()), world, bus, objects, open: Vec::new() }
    }

    /// Another connection to the server.
    pub(crate) async fn connect(&self) -> Bus {
        connect(&self.world, self.world.nats.url()).await
    }

    /// Another connection, as `url` names the server.
    pub(crate) async fn connect_to(&self, url: String) -> Bus {
        connect(&self.world, url).await
    }

    /// Answers a call; `None` answers for every key.
    pub(crate) async fn serve<C: Call>(
        &mut self,
        key: Option<&C::Key>,
        answer: impl Fn(C::Request) -> Result<C::Reply, Problem> + Send + Sync + 'static,
    ) {
        let door = door::<C, _, _>(&self.bus, key, move |request| std::future::ready(answer(request))).await;
        self.open.push(door);
    }

    /// Answers a call after a while.
    pub(crate) async fn serve_slowly<C, F, Fut>(&mut self, key: Option<&C::Key>, answer: F)
    where
        C: Call,
        F: Fn(C::Request) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<C::Reply, Problem>> + Send + 'static,
    {
        let door = door::<C, _, _>(&self.bus, key, answer).await;
        self.open.push(door);
    }
}

async fn connect(world: &World, url: String) -> Bus {
    let creds = Some(world.nats.platform_creds().unwrap());
    Bus::connect(BusOptions { url, creds, name: "test/a".into(), ..BusOptions::default() }).await.unwrap()
}

/// A door of the service that owns the call, on a connection of its own choice.
pub(crate) async fn door<C, F, Fut>(bus: &Bus, key: Option<&C::Key>, answer: F) -> Door
where
    C: Call,
    F: Fn(C::Request) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<C::Reply, Problem>> + Send + 'static,
{
    let service: Service = C::OWNER;
    let doors = Doors::new(bus, service, &"a".parse().unwrap());
    doors.serve::<C, _, _>(key, move |incoming: Incoming<C>| answer(incoming.request)).await.unwrap()
}
