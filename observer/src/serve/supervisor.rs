//! The engine process: it joins the engine, the HTTP process, and the service manager.

use std::{
    future, io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, bail};
use tokio::time::{MissedTickBehavior, interval};

use super::{
    bounds,
    channel::{DocumentKind, FromHttp},
    documents::Documents,
    http_process::HttpProcess,
    listen::Listeners,
    notify::ServiceManager,
    page::ServeState,
    receiver::Receiver,
    report,
    sandbox::{Confinement, Step},
    source::EngineThread,
    viewers::AttachSocket,
};
use crate::{
    end_signals::EndSignals,
    errno,
    export::series::Bounds,
    frame::Frame,
    host::privileges::Reduction,
    model::gaps::{Gaps, Unread},
    recording::{Sink, recorder::Handle},
};

/// What runs, and what it has.
#[derive(Debug)]
pub(super) struct Supervisor {
    listeners: Listeners,
    engine: EngineThread,
    http: Option<HttpProcess>,
    documents: Documents,
    receiver: Option<Receiver>,
    attach: Option<AttachSocket>,
    recorder: Option<Handle>,
    manager: ServiceManager,
    has_frame: bool,
    has_served: bool,
    restarts: u64,
    /// Before the next HTTP process.
    pause: Duration,
    restart_at: Option<Instant>,
    /// What was reported as not read.
    unread: Vec<Unread>,
}

/// What happened.
enum Happened {
    Signal,
    Frame(Option<Box<Frame>>),
    Message(Option<FromHttp>),
    Connection(io::Result<OwnedFd>),
    Viewer(Option<Sink>),
    Tick,
}

impl Supervisor {
    pub(super) fn new(
        listeners: Listeners,
        engine: EngineThread,
        bounds: Bounds,
        receiver: Option<Receiver>,
        attach: Option<AttachSocket>,
        recorder: Option<Handle>,
    ) -> Self {
        let documents = Documents::new(bounds, &listeners.list());
        Self {
            listeners,
            engine,
            http: None,
            documents,
            receiver,
            attach,
            recorder,
            manager: ServiceManager::new(),
            has_frame: false,
            has_served: false,
            restarts: 0,
            pause: bounds::RESTART_PAUSE,
            restart_at: None,
            unread: Vec::new(),
        }
    }

    /// Runs until a signal, or until the engine fails.
    pub(super) async fn run(mut self, mut signals: EndSignals) -> anyhow::Result<()> {
        let outcome = self.serve(&mut signals).await;
        ServiceManager::stops();
        let Self { listeners, engine, http, attach, .. } = self;
        if let Some(http) = http {
            http.end();
        }
        // Nobody connects any more, and the file of a Unix socket goes.
        drop((listeners, attach));
        // Its own error says more.
        engine.end().and(outcome)
    }

    async fn serve(&mut self, signals: &mut EndSignals) -> anyhow::Result<()> {
        self.http = Some(self.start_http()?);
        let mut ticks = interval(self.manager.pause());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let message = async {
                match &self.http {
                    Some(http) => http.receive().await,
                    None => future::pending().await,
                }
            };
            let connection = async {
                match &mut self.receiver {
                    Some(receiver) => receiver.connection().await,
                    None => future::pending().await,
                }
            };
            let viewer = async {
                match &self.attach {
                    Some(attach) => attach.accept().await,
                    None => future::pending().await,
                }
            };
            let happened = tokio::select! {
                biased;
                () = signals.next() => Happened::Signal,
                _ = ticks.tick() => Happened::Tick,
                frame = self.engine.next() => Happened::Frame(frame.map(Box::new)),
                message = message => Happened::Message(message),
                connection = connection => Happened::Connection(connection),
                viewer = viewer => Happened::Viewer(viewer),
            };
            match happened {
                Happened::Signal => return Ok(()),
                Happened::Tick => self.look()?,
                Happened::Frame(Some(frame)) => self.take_frame(*frame)?,
                Happened::Frame(None) => bail!("the engine ended"),
                Happened::Message(Some(message)) => self.answer(message)?,
                Happened::Message(None) => self.lose()?,
                Happened::Viewer(viewer) => viewer.into_iter().for_each(|sink| self.engine.stream_to(sink)),
                Happened::Connection(connection) => {
                    if let Some(http) = &self.http {
                        http.connect(connection);
                    }
                }
            }
        }
    }

    /// Pings, answers the watchdog, and replaces an HTTP process that has ended or hangs.
    fn look(&mut self) -> anyhow::Result<()> {
        let engine_is_alive = self.engine.is_alive();
        if let Some(http) = &mut self.http {
            if http.is_hung() {
                tracing::warn!("the HTTP process does not answer");
                return self.lose();
            }
            // `/-/healthy` fails where the engine stands still.
            if engine_is_alive {
                http.ping(self.has_frame);
                if http.is_alive() {
                    self.manager.watchdog();
                }
            }
        }
        if self.restart_at.is_some_and(|at| at <= Instant::now()) {
            self.restart();
        }
        Ok(())
    }

    /// The HTTP process has ended, or has to. The listeners are still there: clients wait for the next one.
    fn lose(&mut self) -> anyhow::Result<()> {
        let Some(http) = self.http.take() else { return Ok(()) };
        if let Some(receiver) = &mut self.receiver {
            receiver.forget_connection();
        }
        let (age, has_started) = (http.age(), http.confinement.is_some());
        let status = http.kill().context("wait for the HTTP process")?;
        if !self.has_served && !has_started {
            bail!("the HTTP process ended at its start: {status}");
        }
        if age >= bounds::STEADY {
            self.pause = bounds::RESTART_PAUSE;
        }
        tracing::warn!(%status, pause = ?self.pause, "the HTTP process ended");
        self.restart_later();
        Ok(())
    }

    fn start_http(&self) -> anyhow::Result<HttpProcess> {
        HttpProcess::start(&self.listeners, self.receiver.as_ref().map(Receiver::options))
    }

    fn restart_later(&mut self) {
        self.restart_at = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(bounds::RESTART_PAUSE_MOST);
    }

    fn restart(&mut self) {
        self.restart_at = None;
        self.restarts += 1;
        match self.start_http() {
            Ok(http) => self.http = Some(http),
            Err(error) => {
                tracing::error!("{}", errno::sentence(&error));
                self.restart_later();
            }
        }
    }

    /// Answers the HTTP process. Whatever it sends costs a bounded effort: at most one frame and one document of each kind a
    /// second, and nothing waits for it.
    fn answer(&mut self, message: FromHttp) -> anyhow::Result<()> {
        let Some(http) = &mut self.http else { return Ok(()) };
        if http.sends_too_much() {
            tracing::warn!("the HTTP process sends too many messages");
            return self.lose();
        }
        match message {
            FromHttp::Ready(confinement) if http.confinement.is_none() => {
                http.is_ready(confinement);
                http.ping_now(self.has_frame);
                self.report_confinement(confinement);
                self.report_ready();
            }
            FromHttp::Ready(_) => {}
            FromHttp::Pong => http.has_answered(),
            FromHttp::Refused { step, errno } => return self.refuse(step, errno),
            FromHttp::Want(kind) => self.provide(kind),
            FromHttp::Connect => self.connect(),
            FromHttp::Exported(result, detail) => {
                if let Some(receiver) = &mut self.receiver {
                    receiver.exported(result, detail);
                }
            }
        }
        Ok(())
    }

    fn provide(&mut self, kind: DocumentKind) {
        let Some(http) = &self.http else { return };
        if let Some(document) = self.documents.fresh(kind) {
            http.give(kind, document);
        } else {
            // Before the first frame a client waits for that: it may be whom systemd starts observer for.
            self.documents.want(kind);
            self.engine.request();
        }
    }

    /// Connects to the OTLP receiver, and to nothing else. A process that asks too often has to wait.
    fn connect(&mut self) {
        let is_under_way = self.receiver.as_mut().is_some_and(Receiver::connect);
        if let Some(http) = self.http.as_ref().filter(|_| !is_under_way) {
            http.connect(Err(io::Error::from_raw_os_error(libc::EAGAIN)));
        }
    }

    fn refuse(&mut self, step: Step, errno: u32) -> anyhow::Result<()> {
        let errno = errno::describe_number(errno.cast_signed());
        let error = anyhow!("the HTTP process could not {}: {errno}", step.name());
        if self.has_served {
            tracing::error!("{error}");
            return self.lose();
        }
        Err(error)
    }

    fn take_frame(&mut self, frame: Frame) -> anyhow::Result<()> {
        let is_first = !std::mem::replace(&mut self.has_frame, true);
        if is_first && let Some(reduction) = self.engine.reduction() {
            // The first HTTP process has started: it could still become nobody by itself. Where this one stays root, it takes
            // CAP_KILL to end that one.
            let keep = if self.listeners.have_files() { Reduction::KILL } else { 0 };
            reduction.with_capabilities(keep).apply()?;
        }
        let confinement = self.http.as_ref().and_then(|http| http.confinement);
        let frame = Frame {
            http_restarts: Some(self.restarts),
            http_sandbox: confinement.map(Confinement::parts),
            otlp_exports: self.receiver.as_ref().map(Receiver::counts),
            recorder: self.recorder.as_ref().map(Handle::status),
            ..frame
        };
        let state = ServeState { addresses: self.listeners.addresses().collect(), confinement };
        let http = &self.http;
        self.documents.render(&frame, &state, |kind, document| {
            if let Some(http) = http {
                http.give(kind, document);
            }
        });
        if is_first {
            if let Some(http) = &mut self.http {
                http.ping_now(true);
            }
            self.report_ready();
        }
        self.report_unread(&frame.snapshot.quality.gaps);
        Ok(())
    }

    /// What could not be read, each kind once: the page and `/snapshot` have it for as long as it is so.
    fn report_unread(&mut self, gaps: &Gaps) {
        for (kind, gap) in gaps.unread() {
            if !self.unread.contains(&kind) {
                self.unread.push(kind);
                report(&format!("{}: {}", gaps.advice_about(kind, gap), kind.consequence()));
            }
        }
    }

    /// Both the engine and the HTTP process have to be there.
    fn report_ready(&mut self) {
        let serves = self.http.as_ref().is_some_and(|http| http.confinement.is_some());
        if !self.has_frame || !serves {
            return;
        }
        let addresses = self.listeners.list();
        let status = match self.restarts {
            0 => format!("serving on {addresses}"),
            restarts => format!("serving on {addresses}; HTTP process replaced {restarts} times"),
        };
        self.manager.serves(&status);
        if !std::mem::replace(&mut self.has_served, true) {
            report(&status);
        }
    }

    fn report_confinement(&self, confinement: Confinement) {
        if let Some(lacks) = confinement.lacks().filter(|_| !self.has_served) {
            report(&format!("the HTTP process has no capability and may make few system calls; but {lacks}"));
        }
    }
}
