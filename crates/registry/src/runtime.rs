//! The thread behind a client: a tokio runtime of one thread, started with the first request.

use std::future::Future;
use std::sync::mpsc;
use std::thread::JoinHandle;

use bale_fault::{Context, Fault, Kind, Result};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A running thread; dropping it ends all that runs on it.
pub(crate) struct Runtime {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Runtime {
    pub(crate) fn start() -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build();
        let runtime = runtime.within(|| "start the registry client")?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name("bale-registry".to_owned()).spawn(move || {
            // It ends when the sender is dropped.
            let _ = runtime.block_on(stopped);
            // A credential helper that hangs must not keep the client from ending.
            runtime.shutdown_background();
        });
        let thread = thread.within(|| "start the thread of the registry client")?;
        Ok(Self { handle, stop: Some(stop), thread: Some(thread) })
    }

    /// Runs `future` on the thread and waits for what it returns.
    pub(crate) fn wait<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        // Not a channel of tokio's: those panic when a caller is asynchronous itself.
        let (done, outcome) = mpsc::sync_channel(1);
        self.spawn(async move {
            let _ = done.send(future.await);
        });
        outcome.recv().map_err(|_| Fault::new(Kind::Internal, "the thread of the registry client ended"))
    }

    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        drop(self.handle.spawn(future));
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}
