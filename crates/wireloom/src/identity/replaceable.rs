//! An identity that the application exchanges for another while servers and clients use it.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Identity, Kind};

/// An [`Identity`] whose content is another one, to be replaced at any time: for certificates that come from an ACME client, a
/// vault or an API and never touch a file. A cheap clone; clones have the same content.
///
/// ```
/// use wireloom::{Identity, ReplaceableIdentity};
///
/// # fn f() -> Result<(), wireloom::IdentityError> {
/// let certificate = ReplaceableIdentity::new(Identity::self_signed(["example.com"])?);
/// let server = wireloom::Server::builder().identity(certificate.identity());
/// // Later, when the authority has issued one:
/// # let issued = || Identity::self_signed(["example.com"]);
/// certificate.replace(issued()?);
/// # Ok(()) }
/// # f().expect("valid names");
/// ```
#[derive(Debug, Clone)]
pub struct ReplaceableIdentity(Arc<Slot>);

/// What it is now.
#[derive(Debug)]
pub(super) struct Slot(Mutex<Identity>);

impl Slot {
    pub(super) fn current(&self) -> Identity {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ReplaceableIdentity {
    /// Begins with this content.
    pub fn new(first: Identity) -> Self {
        Self(Arc::new(Slot(Mutex::new(first))))
    }

    /// The identity for builders, and for [`Identity::sni`], which follows every replacement. Its hashes are those of its
    /// content, and [`Identity::reload`] reloads that.
    pub fn identity(&self) -> Identity {
        Identity::new(Kind::Replaceable(self.0.clone()))
    }

    /// What it is now.
    pub fn current(&self) -> Identity {
        self.0.current()
    }

    /// Replaces the content: new connections use it, existing ones go on. Where several replace it at once, one of them is the
    /// last.
    ///
    /// An identity of which this one is a part cannot be its content: that is logged, and nothing changes.
    pub fn replace(&self, with: Identity) {
        if with.contains(&self.0) {
            tracing::error!("an identity cannot be replaced with one that contains it");
            return;
        }
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = with;
    }
}

impl Identity {
    fn contains(&self, slot: &Arc<Slot>) -> bool {
        match &*self.0 {
            Kind::Replaceable(own) => Arc::ptr_eq(own, slot) || own.current().contains(slot),
            Kind::ByName(by_name) => by_name.all().any(|identity| identity.contains(slot)),
            Kind::Fixed(_) | Kind::Files(_) | Kind::Rotating(_) => false,
        }
    }
}
