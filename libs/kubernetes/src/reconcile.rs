//! Objects are watched, and each is looked at again whenever something changes or its time has come.

use std::{convert::Infallible, sync::Arc, time::Duration};

use futures::StreamExt;
use kube::{
    Api, ResourceExt,
    runtime::{
        Controller,
        controller::{Action, Config},
        reflector::ObjectRef,
        watcher,
    },
};

use crate::{Cluster, Custom, LogBinding, LogIndex};

/// Objects of one kind and namespace that are looked at at the same time.
pub const CONCURRENCY: u16 = 8;

impl Cluster {
    /// Calls `look` for every LogIndex at the start, when it changes, and after the time that `look` answered with.
    ///
    /// `namespace` of `None` is all of them. Runs until it is dropped, which ends what is being looked at. A watch that breaks
    /// begins again with growing pauses, from a fresh list where it must; one object is never looked at twice at a time.
    pub async fn reconcile_indexes<F, Fut>(&self, namespace: Option<&str>, look: F)
    where
        F: Fn(Arc<LogIndex>) -> Fut,
        Fut: Future<Output = Duration> + Send + 'static,
    {
        run(Controller::new(self.scoped::<LogIndex>(namespace), watcher::Config::default()), look).await;
    }

    /// Calls `look` for every LogBinding as [`Cluster::reconcile_indexes`] does, and also when its LogIndex changes.
    pub async fn reconcile_bindings<F, Fut>(&self, namespace: Option<&str>, look: F)
    where
        F: Fn(Arc<LogBinding>) -> Fut,
        Fut: Future<Output = Duration> + Send + 'static,
    {
        let controller = Controller::new(self.scoped::<LogBinding>(namespace), watcher::Config::default());
        let known = controller.store();
        let of_index = move |index: LogIndex| {
            let refers = |binding: &LogBinding| {
                binding.spec.index_ref.name == index.name_any() && binding.namespace() == index.namespace()
            };
            let bindings = known.state_filter(refers);
            bindings.iter().map(|binding| ObjectRef::from_obj(binding.as_ref())).collect::<Vec<_>>()
        };
        run(controller.watches(self.scoped::<LogIndex>(namespace), watcher::Config::default(), of_index), look).await;
    }

    fn scoped<K: Custom>(&self, namespace: Option<&str>) -> Api<K> {
        match namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }
}

async fn run<K: Custom, F, Fut>(controller: Controller<K>, look: F)
where
    F: Fn(Arc<K>) -> Fut,
    Fut: Future<Output = Duration> + Send + 'static,
{
    let look = |object: Arc<K>, _: Arc<()>| {
        let looking = look(object);
        async move { Ok::<_, Infallible>(Action::requeue(looking.await)) }
    };
    let never = |_: Arc<K>, error: &Infallible, _: Arc<()>| match *error {};
    let ended = controller.with_config(Config::default().concurrency(CONCURRENCY)).run(look, never, Arc::new(()));
    let log = |step: Result<_, kube::runtime::controller::Error<Infallible, watcher::Error>>| async move {
        match step {
            Ok(_) | Err(kube::runtime::controller::Error::ObjectNotFound(_)) => {}
            Err(error) => tracing::warn!(%error, "objects of the cluster are not followed; it is tried again"),
        }
    };
    ended.for_each(log).await;
}
