//! Where other replicas write to the store, too: what they have made counts here as well, and what they have removed is
//! let go of. Each request asks the store in any case; this is for limits and metrics, for pins and pings of contexts
//! that nobody here uses any more, and for finding implicit contexts that another replica has made.

use std::collections::HashSet;

use holdfast_protocol::ContextId;
use holdfast_store::StoreError;

use super::Contexts;

impl Contexts {
    /// Compares what is known here with what is stored. Nothing where nobody else can have changed that.
    pub(crate) async fn take_census(&self) -> Result<(), StoreError> {
        if !self.store.is_shared() {
            return Ok(());
        }
        // Before the store is asked: what is stored after that is in neither of the two.
        let before = self.living.stored();
        let census = self.store.census(self.now()).await?;
        let living: HashSet<&ContextId> = census.iter().map(|context| &context.id).collect();
        let gone: HashSet<ContextId> = before
            .keys()
            .filter(|id| !living.contains(id))
            .cloned()
            .collect();
        self.implicit.remove_all(&gone);
        for id in &gone {
            self.living.remove(id);
            self.cache().remove(id);
            let model = before.get(id).map(|model| self.models.resolve(model));
            if let Some(Ok(model)) = model {
                model.backend.release(id);
            }
        }
        for context in &census {
            match before.contains_key(&context.id) {
                true => self.living.resize(&context.id, context.prefix_tokens),
                // Made here since then, it has counted itself; and what was removed since then goes with the next census.
                false if self.living.contains(&context.id) => {}
                false => {
                    self.living.insert(context);
                    self.implicit.insert_new(context);
                }
            }
        }
        Ok(())
    }
}
