//! A descriptor that the event loop waits on.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
};

use tokio::io::{Interest, unix::AsyncFd};

/// A descriptor of a launch or of the kernel, watched by the current tokio runtime.
#[derive(Debug)]
pub struct Watched(AsyncFd<OwnedFd>);

impl Watched {
    /// Watches a duplicate of `fd`, so that the original stays free for use.
    ///
    /// # Errors
    ///
    /// The descriptor cannot be duplicated or watched.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn new(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let own = fd.try_clone_to_owned()?;
        // SAFETY: the duplicate is ours alone, and stays open and the same as long as it is watched.
        let watched = unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) }
            .map_err(|error| error.into_parts().1)?;
        Ok(Self(watched))
    }

    /// Waits until there is something to read. The caller reads until there is nothing left.
    ///
    /// # Errors
    ///
    /// The runtime is shutting down.
    pub async fn readable(&self) -> io::Result<()> {
        self.0.readable().await?.clear_ready();
        Ok(())
    }
}
