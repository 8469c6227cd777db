//! What the provisioner has, page by page.

use bus::Bus;
use types::BindingId;
use wire::{
    Problem,
    index_provisioner::{BindingDescription, BindingsOf, IndexDescription, IndexesOf, ListBindings, ListIndexes},
};

use crate::{
    effects::CALL_MAX,
    state::{BINDINGS_MAX, INSTANCES_MAX},
};

/// Every log index that can be used.
///
/// Bounds: twice as many as there may be instances; a provisioner that has more is not ours alone, and the rest is left out.
pub(crate) async fn indexes(bus: &Bus) -> Result<Vec<IndexDescription>, Problem> {
    let mut all: Vec<IndexDescription> = Vec::new();
    loop {
        let after = all.last().map(|last| last.instance.clone());
        let asked = IndexesOf { after, ..IndexesOf::default() };
        let page = bus.call_within::<ListIndexes>(&(), &asked, CALL_MAX).await?;
        let goes_on = page.more && !page.indexes.is_empty() && all.len() < 2 * INSTANCES_MAX;
        all.extend(page.indexes);
        if !goes_on {
            return Ok(all);
        }
    }
}

/// Every live binding.
///
/// Bounds: as for [`indexes`].
pub(crate) async fn bindings(bus: &Bus) -> Result<Vec<BindingDescription>, Problem> {
    let (mut all, mut after): (Vec<BindingDescription>, Option<BindingId>) = (Vec::new(), None);
    loop {
        let asked = BindingsOf { after, ..BindingsOf::default() };
        let page = bus.call_within::<ListBindings>(&(), &asked, CALL_MAX).await?;
        after = page.bindings.last().map(|last| last.binding.clone());
        let goes_on = page.more && after.is_some() && all.len() < 2 * BINDINGS_MAX;
        all.extend(page.bindings);
        if !goes_on {
            return Ok(all);
        }
    }
}
