//! How a model serves: its runtime, its accept loop, its connections.

use crate::offload::Place;
use crate::{EVENT_INTERVAL, STACK_SIZE};
use common::{Knobs, Loops, Served, Server, Service, Step, Stop};
use on_tokio::Connections;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::Context;
use std::thread;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf, unix::AsyncFd};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle, LocalOptions};
use tokio::task::{spawn_local, yield_now};

/// The pause between two empty tasks.
const NUDGE: Duration = Duration::from_millis(1);

/// What sets a model apart from the others.
#[derive(Clone, Copy)]
pub struct Way {
    /// The place that makes the blocking call.
    pub place: fn(&Knobs) -> io::Result<Place>,
    /// Further settings of the runtime.
    pub tune: fn(&mut Builder),
    /// The runtime takes tasks that are not `Send`.
    pub is_local: bool,
    /// A thread spawns an empty task again and again.
    pub is_nudged: bool,
}

impl Way {
    /// The thread that serves a connection makes its blocking calls; the runtime has tokio's defaults.
    pub const INLINE: Way = Way { place: |_| Ok(Place::Inline), tune: |_| {}, is_local: false, is_nudged: false };

    /// Serves in this way.
    ///
    /// # Errors
    /// Fails if the system refuses a thread or a descriptor.
    pub fn serve(self, server: Server) -> io::Result<()> {
        let Server { knobs, acceptor, siblings, stop, service } = server;
        // It lives as long as the process.
        let place: &'static Place = Box::leak(Box::new((self.place)(&knobs)?));
        for (number, acceptor) in siblings.into_iter().enumerate() {
            let (thread, stop) = (thread::Builder::new().name(format!("core-{}", number + 1)), stop.clone());
            thread
                .spawn(move || common::or_exit(self.run_loop(&knobs, accept(self.is_local, acceptor, stop, place, service))))?;
        }
        self.run_loop(&knobs, accept(self.is_local, acceptor, stop, place, service))
    }

    fn run_loop(self, knobs: &Knobs, accept: impl Future<Output = io::Result<()>> + Send + 'static) -> io::Result<()> {
        let mut builder = self.builder(knobs);
        if self.is_local {
            return builder.build_local(LocalOptions::default())?.block_on(accept);
        }
        let runtime = builder.build()?;
        if self.is_nudged {
            let handle = runtime.handle().clone();
            thread::Builder::new().name("nudge".into()).spawn(move || nudge(&handle))?;
        }
        // Spawn the accept loop, so that it runs on a worker like every other task and not on the waiting main thread.
        runtime.block_on(async { tokio::spawn(accept).await })?
    }

    fn builder(self, knobs: &Knobs) -> Builder {
        let has_workers = knobs.model.has_threads && knobs.model.loops == Loops::One;
        let mut builder = if has_workers { Builder::new_multi_thread() } else { Builder::new_current_thread() };
        builder.worker_threads(knobs.threads).thread_stack_size(STACK_SIZE);
        // tokio's own pool needs at least one thread, even in models that do not use it.
        builder.max_blocking_threads(knobs.blocking_threads.max(1));
        builder.event_interval(EVENT_INTERVAL).enable_io();
        (self.tune)(&mut builder);
        builder
    }
}

/// Each task wakes a worker that sleeps, and when that has run it, it may take the I/O driver from one that is blocked.
fn nudge(handle: &Handle) {
    loop {
        thread::sleep(NUDGE);
        handle.spawn(async {});
    }
}

async fn accept(
    is_local: bool,
    acceptor: common::Acceptor,
    stop: Stop,
    place: &'static Place,
    service: Service,
) -> io::Result<()> {
    let in_a_row = acceptor.in_a_row();
    let connections = Connections::new(acceptor)?;
    // SAFETY: it owns its descriptor, never changes it, and keeps it open until it and its registration are dropped.
    let stop = unsafe { AsyncFd::register(stop)? };
    let mut stopped = pin!(stop.readable());
    service.ready();
    let mut accepted = 0;
    loop {
        let served = tokio::select! {
            biased;
            _ = &mut stopped => break,
            served = connections.next() => served?,
        };
        let connection = serve_connection(served, place, service);
        drop(if is_local { spawn_local(connection) } else { tokio::spawn(connection) });
        accepted += 1;
        // Serve them until they wait before accepting the next one, which an idle process may take.
        if accepted % in_a_row == 0 {
            yield_now().await;
        }
    }
    drop(connections);
    std::future::pending().await
}

async fn serve_connection(mut served: Served<TcpStream>, place: &'static Place, service: Service) -> io::Result<()> {
    let (stream, connection) = served.parts();
    loop {
        match connection.step() {
            Step::Read => {
                let read = |context: &mut Context<'_>| {
                    connection.poll_read(|space| {
                        let mut buffer = ReadBuf::new(space);
                        Pin::new(&mut *stream).poll_read(context, &mut buffer).map_ok(|()| buffer.filled().len())
                    })
                };
                poll_fn(read).await?;
            }
            Step::Write => {
                let count = stream.write(connection.unsent()).await?;
                connection.sent(count);
            }
            Step::Run(work) => connection.answer(&place.run(work, service).await?),
            Step::CloseSend => stream.shutdown().await?,
            // tokio's own budget counts reads and writes only.
            Step::Yield => yield_now().await,
            Step::Close => return Ok(()),
        }
    }
}
