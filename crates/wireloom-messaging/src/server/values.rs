//! What an application keeps with a connection.

use std::any::Any;
use std::sync::Arc;

/// One value of each type. Few, so that they are searched one by one.
#[derive(Clone, Default)]
pub(super) struct Values(Vec<Arc<dyn Any + Send + Sync>>);

impl Values {
    pub(super) fn insert<T: Send + Sync + 'static>(&mut self, value: T) {
        self.0.retain(|value| !value.is::<T>());
        self.0.push(Arc::new(value));
    }

    pub(super) fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let found = self.0.iter().find(|value| value.is::<T>())?;
        Arc::downcast(found.clone()).ok()
    }
}
