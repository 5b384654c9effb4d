//! The worker processes of a lab: servers that share listeners, and clients, filled one after the other or all at once.

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
        order::{Answer, Connect, Goodbye, Order, Refusal},
    },
};

/// Between two looks at workers that are at work.
const LOOK: Duration = Duration::from_millis(100);

/// What every client opens in a round, and how long a round lasts at least.
const ROUND_CONNECTIONS: u32 = 250;
const ROUND: Duration = Duration::from_millis(50);

/// All workers of a lab.
#[derive(Debug)]
pub(super) struct Crew {
    clients: Vec<Worker>,
    servers: Vec<Worker>,
    deadline: Instant,
}

/// What became of connections that were asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Connected {
    /// How many were opened.
    pub(super) opened: u32,
    /// What ended that, if it was not the number.
    pub(super) refused: Option<Refusal>,
    /// How long connect() took in the median of the last worker's, in nanoseconds.
    pub(super) median_nanos: u64,
}

impl Connected {
    /// The error that ended it.
    pub(super) fn errno(&self) -> Option<i32> {
        self.refused.as_ref().map(|refused| refused.errno)
    }
}

/// What servers hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Accepted {
    /// How many connections.
    pub(super) held: u32,
    /// The local addresses of all of them, without repetition.
    pub(super) locals: BTreeSet<SocketAddrV4>,
    /// What accept() was refused with.
    pub(super) refused: Option<Refusal>,
}

impl Crew {
    pub(super) const fn new(deadline: Instant) -> Self {
        Self { clients: Vec::new(), servers: Vec::new(), deadline }
    }

    fn left(&self) -> anyhow::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "the lab is not done in the time that it has: choose a smaller --scale");
        Ok(left)
    }

    /// Starts as many servers as `most` connections take; all accept from the same listener.
    pub(super) fn serve(&mut self, listener: &Socket, most: u32) -> anyhow::Result<()> {
        let room = needs::room();
        for _ in 0..most.div_ceil(room).max(1) {
            let server = Worker::start(Role::Server, room)?;
            server.order(&Order::Accept { most: room }, Some(listener.as_fd()))?;
            let answer = server.answer_within(self.left()?)?;
            ensure!(matches!(answer, Some(Answer::Done)), "a server did not take the listener: {answer:?}");
            self.servers.push(server);
        }
        Ok(())
    }

    /// Opens connections, on a further client process whenever one is full.
    pub(super) fn connect(&mut self, connect: Connect) -> anyhow::Result<Connected> {
        let mut sum = Connected::default();
        while sum.opened < connect.most && sum.refused.is_none() {
            if self.clients.last().is_none_or(|client| client.room == 0) {
                self.new_client()?;
            }
            let left = self.left()?;
            let client = self.clients.last_mut().context("a client")?;
            let most = (connect.most - sum.opened).min(client.room);
            client.order(&Order::Connect(Connect { most, ..connect }), None)?;
            let answer = client.answer_within(left)?;
            add(&mut sum, client, answer.context("a client did not answer in time")?)?;
        }
        Ok(sum)
    }

    /// Starts a client process, which opens what is asked for next.
    pub(super) fn new_client(&mut self) -> anyhow::Result<()> {
        self.clients.push(Worker::start(Role::Client, needs::room())?);
        Ok(())
    }

    /// Opens connections by as many clients as there are orders, all at the same time, in rounds: so that the servers and
    /// whoever looks on keep up. `look` is told how many are open after each round.
    pub(super) fn connect_at_once(
        &mut self,
        orders: &[Connect],
        mut look: impl FnMut(u32) -> anyhow::Result<()>,
    ) -> anyhow::Result<Connected> {
        let first = self.clients.len();
        for _ in orders {
            self.new_client()?;
        }
        let mut left: Vec<u32> = orders.iter().map(|order| order.most).collect();
        let mut sum = Connected::default();
        while left.iter().any(|left| *left > 0) && sum.refused.is_none() {
            let next = Instant::now() + ROUND;
            let busy: Vec<usize> = (0..orders.len()).filter(|i| left[*i] > 0).collect();
            for i in &busy {
                let most = left[*i].min(ROUND_CONNECTIONS);
                left[*i] -= most;
                self.clients[first + i].order(&Order::Connect(Connect { most, ..orders[*i] }), None)?;
            }
            for i in busy {
                let time = self.left()?;
                let client = &mut self.clients[first + i];
                let answer = client.answer_within(time)?.context("a client did not answer in time")?;
                add(&mut sum, client, answer)?;
            }
            look(sum.opened)?;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        Ok(sum)
    }

    /// What the servers hold, once it is `expected` connections; or what it is when they have had time enough.
    pub(super) fn accepted(&mut self, expected: u32) -> anyhow::Result<Accepted> {
        let patience = Instant::now() + Duration::from_secs(20);
        loop {
            let accepted = self.tell()?;
            if accepted.held >= expected || accepted.refused.is_some() || Instant::now() > patience {
                return Ok(accepted);
            }
            std::thread::sleep(LOOK);
        }
    }

    fn tell(&self) -> anyhow::Result<Accepted> {
        let mut sum = Accepted::default();
        for server in &self.servers {
            match server.ask(&Order::Tell, self.deadline)? {
                Answer::Accepted { held, locals, refused } => {
                    sum.held += held;
                    sum.locals.extend(locals);
                    sum.refused = sum.refused.or(refused);
                }
                other => bail!("not an answer to what was accepted: {other:?}"),
            }
        }
        Ok(sum)
    }

    /// Closes all connections, the clients' ends first; the workers stay.
    pub(super) fn close(&mut self, goodbye: Goodbye) -> anyhow::Result<()> {
        for worker in self.clients.iter_mut().chain(&mut self.servers) {
            let answer = worker.ask(&Order::Close(goodbye), self.deadline)?;
            ensure!(matches!(answer, Answer::Done), "not an answer to closing: {answer:?}");
            worker.room = needs::room();
        }
        Ok(())
    }

    /// Sets the soft limit of descriptors of the last server or, without one, the last client, which is started if need
    /// be; returns its process id and how many it has open.
    pub(super) fn limit_files(&mut self, role: Role, soft: u64) -> anyhow::Result<(u32, u64)> {
        let workers = if role == Role::Server { &mut self.servers } else { &mut self.clients };
        if workers.is_empty() {
            workers.push(Worker::start(role, needs::room())?);
        }
        let worker = workers.last().context("a worker")?;
        match worker.ask(&Order::LimitFiles { soft }, self.deadline)? {
            Answer::Files { open } => Ok((worker.pid(), open)),
            other => bail!("not an answer to a limit: {other:?}"),
        }
    }

    /// Ends all workers; the kernel closes what they held.
    pub(super) fn dismiss(&mut self) {
        let mut all: Vec<Worker> = self.clients.drain(..).chain(self.servers.drain(..)).collect();
        // All are told before one is waited for.
        all.iter_mut().for_each(Worker::kill);
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.dismiss();
    }
}

fn add(sum: &mut Connected, client: &mut Worker, answer: Answer) -> anyhow::Result<()> {
    let Answer::Connected { opened, refused, median_nanos } = answer else {
        bail!("not an answer to connecting: {answer:?}");
    };
    sum.opened += opened;
    sum.refused = sum.refused.take().or(refused);
    sum.median_nanos = median_nanos;
    client.room = client.room.saturating_sub(opened);
    Ok(())
}
