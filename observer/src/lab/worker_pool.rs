//! The worker processes of a lab: servers that share listeners, and clients that work one after the other or all at
//! once.

use std::{
    collections::BTreeSet,
    net::SocketAddrV4,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use socket2::Socket;

use super::{
    needs,
    worker::{
        Role, Worker,
        request::{CloseWith, Connect, Refusal, Request, Response},
    },
};

/// Time between two looks at busy workers.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How many connections each client opens in a round, and the least duration of a round.
const ROUND_CONNECTIONS: u32 = 250;
const ROUND: Duration = Duration::from_millis(50);

/// All workers of a lab.
#[derive(Debug)]
pub(super) struct WorkerPool {
    clients: Vec<Worker>,
    servers: Vec<Worker>,
    deadline: Instant,
}

/// The outcome of a request to open connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Connected {
    /// How many clients opened.
    pub(super) opened: u32,
    /// The refusal that ended it, if the number did not.
    pub(super) refused: Option<Refusal>,
    /// Median duration of connect() in the last worker, in nanoseconds.
    pub(super) connect_median_ns: u64,
}

impl Connected {
    /// The error that ended it.
    pub(super) fn errno(&self) -> Option<i32> {
        self.refused.as_ref().map(|refused| refused.errno)
    }
}

/// What servers have accepted.
#[derive(Clone, Debug, Default)]
pub(super) struct Accepted {
    /// How many connections are open.
    pub(super) count: u32,
    /// The distinct local addresses of all of them.
    pub(super) locals: BTreeSet<SocketAddrV4>,
    /// The refusal of accept(), if there was one.
    pub(super) refused: Option<Refusal>,
}

impl WorkerPool {
    pub(super) const fn new(deadline: Instant) -> Self {
        Self { clients: Vec::new(), servers: Vec::new(), deadline }
    }

    fn left(&self) -> anyhow::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "the lab did not finish in time: choose a smaller --scale");
        Ok(left)
    }

    /// Starts as many servers as `most` connections need. All accept from the same listener.
    pub(super) fn serve(&mut self, listener: &Socket, most: u32) -> anyhow::Result<()> {
        let room = needs::room();
        for _ in 0..most.div_ceil(room).max(1) {
            let server = Worker::start(Role::Server, room)?;
            server.request(&Request::Accept { most: room }, Some(listener.as_fd()))?;
            let response = server.response_within(self.left()?)?;
            ensure!(matches!(response, Some(Response::Done)), "a server did not take the listener: {response:?}");
            self.servers.push(server);
        }
        Ok(())
    }

    /// Opens connections, with another client process whenever one is full.
    pub(super) fn connect(&mut self, connect: Connect) -> anyhow::Result<Connected> {
        let mut sum = Connected::default();
        while sum.opened < connect.most && sum.refused.is_none() {
            if self.clients.last().is_none_or(|client| client.room == 0) {
                self.new_client()?;
            }
            let left = self.left()?;
            let client = self.clients.last_mut().context("a client")?;
            let most = (connect.most - sum.opened).min(client.room);
            client.request(&Request::Connect(Connect { most, ..connect }), None)?;
            let response = client.response_within(left)?;
            add(&mut sum, client, response.context("a client did not respond in time")?)?;
        }
        Ok(sum)
    }

    /// Starts a client process, which takes the next request.
    pub(super) fn new_client(&mut self) -> anyhow::Result<()> {
        self.clients.push(Worker::start(Role::Client, needs::room())?);
        Ok(())
    }

    /// Opens connections with one client for each request, all at the same time. They work in rounds, so that the
    /// servers and observer keep up. `progress` receives the number of open connections after each round.
    pub(super) fn connect_at_once(
        &mut self,
        requests: &[Connect],
        mut progress: impl FnMut(u32) -> anyhow::Result<()>,
    ) -> anyhow::Result<Connected> {
        let first = self.clients.len();
        for _ in requests {
            self.new_client()?;
        }
        let mut left: Vec<u32> = requests.iter().map(|request| request.most).collect();
        let mut sum = Connected::default();
        while left.iter().any(|left| *left > 0) && sum.refused.is_none() {
            let next = Instant::now() + ROUND;
            let busy: Vec<usize> = (0..requests.len()).filter(|i| left[*i] > 0).collect();
            for i in &busy {
                let most = left[*i].min(ROUND_CONNECTIONS);
                left[*i] -= most;
                self.clients[first + i].request(&Request::Connect(Connect { most, ..requests[*i] }), None)?;
            }
            for i in busy {
                let time = self.left()?;
                let client = &mut self.clients[first + i];
                let response = client.response_within(time)?.context("a client did not respond in time")?;
                add(&mut sum, client, response)?;
            }
            progress(sum.opened)?;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        Ok(sum)
    }

    /// What the servers have accepted: once that is `expected` connections, or after 20 seconds.
    pub(super) fn accepted(&mut self, expected: u32) -> anyhow::Result<Accepted> {
        let patience = Instant::now() + Duration::from_secs(20);
        loop {
            let accepted = self.report_accepted()?;
            if accepted.count >= expected || accepted.refused.is_some() || Instant::now() > patience {
                return Ok(accepted);
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    fn report_accepted(&self) -> anyhow::Result<Accepted> {
        let mut sum = Accepted::default();
        for server in &self.servers {
            match server.ask(&Request::ReportAccepted, self.deadline)? {
                Response::Accepted { count, locals, refused } => {
                    sum.count += count;
                    sum.locals.extend(locals);
                    sum.refused = sum.refused.or(refused);
                }
                other => bail!("unexpected response to ReportAccepted: {other:?}"),
            }
        }
        Ok(sum)
    }

    /// Closes all connections, the clients' ends first. The workers go on.
    pub(super) fn close(&mut self, how: CloseWith) -> anyhow::Result<()> {
        for worker in self.clients.iter_mut().chain(&mut self.servers) {
            let response = worker.ask(&Request::Close(how), self.deadline)?;
            ensure!(matches!(response, Response::Done), "unexpected response to Close: {response:?}");
            worker.room = needs::room();
        }
        Ok(())
    }

    /// Sets the soft fd limit of the last worker of this role, and starts one if there is none. Returns its process id
    /// and how many fds it has open.
    pub(super) fn limit_files(&mut self, role: Role, soft: u64) -> anyhow::Result<(u32, u64)> {
        let workers = if role == Role::Server { &mut self.servers } else { &mut self.clients };
        if workers.is_empty() {
            workers.push(Worker::start(role, needs::room())?);
        }
        let worker = workers.last().context("a worker")?;
        match worker.ask(&Request::LimitFiles { soft }, self.deadline)? {
            Response::Files { open } => Ok((worker.pid(), open)),
            other => bail!("unexpected response to LimitFiles: {other:?}"),
        }
    }

    /// Kills all workers. The kernel closes their sockets.
    pub(super) fn stop_all(&mut self) {
        let mut all: Vec<Worker> = self.clients.drain(..).chain(self.servers.drain(..)).collect();
        // Kill all before waiting for one.
        all.iter_mut().for_each(Worker::kill);
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        self.stop_all();
    }
}

fn add(sum: &mut Connected, client: &mut Worker, response: Response) -> anyhow::Result<()> {
    let Response::Connected { opened, refused, connect_median_ns } = response else {
        bail!("unexpected response to Connect: {response:?}");
    };
    sum.opened += opened;
    sum.refused = sum.refused.take().or(refused);
    sum.connect_median_ns = connect_median_ns;
    client.room = client.room.saturating_sub(opened);
    Ok(())
}
