//! One thread, many connections: sockets that do not block, and one poll for all of them.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown};
use std::time::{Duration, Instant, SystemTime};

use inference::api::Service;
use inference::http::{self, Parsed};
use wasmedge_wasi_socket::poll::{EventType, Subscription, poll};
use wasmedge_wasi_socket::{TcpListener, TcpStream};

const MAX_CONNECTIONS: usize = 256;
/// A connection without a request, or whose answer is not taken, is closed after this.
const IDLE: Duration = Duration::from_secs(75);
/// A request must be whole this long after its first bytes: slow senders cannot hold all connections.
const WHOLE: Duration = Duration::from_secs(30);
/// How long what a client still sends after its last answer is read and dropped, so that it gets that answer.
const LINGER: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_secs(1);
const LISTENER: u64 = u64::MAX;
const CLOCK: u64 = u64::MAX - 1;

struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    unsent: Vec<u8>,
    continued: bool,
    last: bool,
    lingering: bool,
    deadline: Instant,
}

/// Answers requests for as long as the process lives.
pub fn serve(port: u16, mut service: Service) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port), true)?;
    println!("listening on port {port}");
    let mut connections: Vec<Option<Connection>> = Vec::new();
    loop {
        let events = poll(&subscriptions(&listener, &connections))?;
        for event in events {
            match event.userdata {
                LISTENER => accept(&listener, &mut connections),
                CLOCK => {}
                at => {
                    let slot = &mut connections[at as usize];
                    let alive = slot.as_mut().is_some_and(|connection| match event.event_type {
                        EventType::Error(_) => false,
                        _ => connection.advance(&mut service).is_ok(),
                    });
                    if !alive {
                        *slot = None;
                    }
                }
            }
        }
        let now = Instant::now();
        for slot in &mut connections {
            slot.take_if(|connection| connection.deadline < now);
        }
        service.metrics.connections = connections.iter().flatten().count();
    }
}

fn subscriptions(listener: &TcpListener, connections: &[Option<Connection>]) -> Vec<Subscription> {
    let open = connections.iter().flatten().count();
    let mut list = Vec::with_capacity(open + 2);
    if open < MAX_CONNECTIONS {
        list.push(Subscription::io(LISTENER, listener, true, false, None));
    }
    if open > 0 {
        list.push(Subscription::timeout(CLOCK, SystemTime::now() + TICK));
    }
    for (at, slot) in connections.iter().enumerate() {
        if let Some(connection) = slot {
            let writing = !connection.unsent.is_empty();
            list.push(Subscription::io(at as u64, &connection.stream, !writing, writing, None));
        }
    }
    list
}

fn accept(listener: &TcpListener, connections: &mut Vec<Option<Connection>>) {
    // TcpListener::accept asks for the peer's address and fails when it has gone already.
    let Ok(socket) = listener.as_ref().accept(true) else { return };
    let connection = Some(Connection {
        stream: TcpStream::new(socket),
        received: Vec::new(),
        unsent: Vec::new(),
        continued: false,
        last: false,
        lingering: false,
        deadline: Instant::now() + IDLE,
    });
    match connections.iter_mut().find(|slot| slot.is_none()) {
        Some(slot) => *slot = connection,
        None => connections.push(connection),
    }
}

impl Connection {
    /// Does what the socket is ready for; an error means that the connection is over.
    fn advance(&mut self, service: &mut Service) -> io::Result<()> {
        if self.unsent.is_empty() {
            self.receive()?;
        }
        loop {
            self.send()?;
            if !self.unsent.is_empty() || self.lingering || !self.answer(service) {
                return Ok(());
            }
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) if self.lingering => return Ok(()),
                Ok(length) => {
                    if self.received.is_empty() {
                        self.deadline = Instant::now() + WHOLE;
                    }
                    self.received.extend_from_slice(&chunk[..length]);
                    if length < chunk.len() || self.received.len() > http::MAX_HEAD + http::MAX_BODY {
                        return Ok(());
                    }
                }
                Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(why) => return Err(why),
            }
        }
    }

    /// Takes one request from what arrived; false when there is no whole one.
    fn answer(&mut self, service: &mut Service) -> bool {
        if self.received.is_empty() {
            return false;
        }
        let (response, keep_alive) = match http::parse(&self.received) {
            Parsed::Partial { expects } => {
                let wanted = expects && !self.continued;
                if wanted {
                    self.continued = true;
                    self.unsent.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                }
                return wanted;
            }
            Parsed::Whole(request, length) => {
                self.received.drain(..length);
                self.continued = false;
                (service.answer(&request), request.keep_alive)
            }
            Parsed::Bad(response) => {
                service.metrics.request(response.status);
                (response, false)
            }
        };
        self.last = !keep_alive;
        self.deadline = Instant::now() + IDLE;
        self.unsent.extend_from_slice(&response.encode(keep_alive));
        true
    }

    fn send(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(length) => {
                    self.unsent.drain(..length);
                }
                Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(why) => return Err(why),
            }
        }
        if self.last && !self.lingering {
            // Closing with unread bytes would reset the connection before the client has read the answer.
            self.stream.shutdown(Shutdown::Write)?;
            self.lingering = true;
            self.received = Vec::new();
            self.deadline = Instant::now() + LINGER;
        }
        Ok(())
    }
}
