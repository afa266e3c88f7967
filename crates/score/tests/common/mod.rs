//! A small town of people, applications and bots, from a seed.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of this module")]

use offpath_types::{
    BodyHint, FlowInfo, FlowKey, Host, IdentityHash, Peer, RedirectClass, StackClass, Timestamp, Transaction,
    TunnelId,
};

/// SplitMix64 (Steele, Lea, Flood 2014).
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
    pub fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }
    /// Exponential with the given mean.
    pub fn wait(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + self.unit() * (high - low)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who {
    Person,
    Office,
    App,
    Partner,
    Forgetful,
    FastStuffing,
    SlowRotating,
    SlowMimic,
    Spray,
    BruteForce,
    BruteRotating,
    PrefixLow,
    Scraper,
}

impl Who {
    pub const BOTS: [Self; 8] = [
        Self::FastStuffing,
        Self::SlowRotating,
        Self::SlowMimic,
        Self::Spray,
        Self::BruteForce,
        Self::BruteRotating,
        Self::PrefixLow,
        Self::Scraper,
    ];
    pub fn is_bot(self) -> bool {
        Self::BOTS.contains(&self)
    }
}

/// How the login of the town answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// 200 and 401.
    Status,
    /// Redirects to the account, or back to the login.
    Redirect,
    /// Redirects in; shows the form again with 200.
    FormAgain,
    /// Always 200, JSON says which.
    Body,
}

#[derive(Clone, Copy)]
pub struct Client {
    pub ip: [u8; 4],
    pub fingerprint: u64,
    pub stack: StackClass,
    pub session: u64,
    pub contradicted: bool,
}

impl Client {
    /// A client that says what it claims to be, truly; `session` 0: none.
    pub fn new(ip: [u8; 4], fingerprint: u64, stack: StackClass, session: u64) -> Self {
        Self { ip, fingerprint, stack, session, contradicted: false }
    }
    pub fn library(ip: [u8; 4], fingerprint: u64) -> Self {
        Self::new(ip, fingerprint, StackClass::Library, 0)
    }
}

pub fn identity(domain: u64, n: u64) -> IdentityHash {
    let mut rng = Rng(domain.wrapping_mul(0x1234_5678_9abc_def1) ^ n);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&rng.next().to_le_bytes());
    bytes[8..].copy_from_slice(&rng.next().to_le_bytes());
    IdentityHash(bytes)
}

pub fn endpoint_hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

pub const START: u64 = 1_700_000_000;

pub fn at(secs: f64) -> Timestamp {
    Timestamp::from_nanos(START * 1_000_000_000 + (secs * 1e9) as u64)
}

pub fn request(
    client: Client,
    secs: f64,
    method: &str,
    path: &str,
    endpoint: &str,
    navigation: bool,
) -> Transaction {
    let peer = |b, port| Peer { host: Host::from_v4(b), port };
    let port = 1024 + (secs * 1000.0) as u64 % 60_000;
    let (key, client_side) =
        FlowKey::new(peer(client.ip, port as u16), peer([203, 0, 113, 80], 80), TunnelId(0));
    let flow =
        FlowInfo { key, client_side, opened: at(secs), midstream: false, envelope: Default::default() };
    let mut tx = Transaction::new(flow, port, 0, at(secs));
    tx.method = tx.text.push(method.as_bytes());
    tx.path = tx.text.push(path.as_bytes());
    tx.endpoint = tx.text.push(endpoint.as_bytes());
    tx.endpoint_hash = endpoint_hash(endpoint);
    tx.status = Some(200);
    tx.complete = true;
    tx.navigation = navigation;
    tx.fingerprint = client.fingerprint;
    tx.stack_claimed = client.stack;
    tx.stack_contradicted = client.contradicted;
    if client.session != 0 {
        tx.session = Some(identity(1, client.session));
    }
    tx
}

pub fn login(
    client: Client,
    secs: f64,
    style: Style,
    api: bool,
    user: u64,
    password: u64,
    good: bool,
) -> Transaction {
    let path = if api { "/api/login" } else { "/login" };
    let mut tx = request(client, secs, "POST", path, &format!("POST {path}"), false);
    tx.user = Some(identity(2, user));
    tx.login.password = Some(identity(3, password));
    tx.login.path_looks_like_login = true;
    match (if api { Style::Status } else { style }, good) {
        (Style::Status, true) => tx.status = Some(200),
        (Style::Status, false) => tx.status = Some(401),
        (Style::Redirect, true) | (Style::FormAgain, true) => {
            tx.status = Some(302);
            tx.login.redirect = RedirectClass::Elsewhere;
            tx.login.sets_cookie = true;
        }
        (Style::Redirect, false) => {
            tx.status = Some(302);
            tx.login.redirect = RedirectClass::SamePath;
        }
        (Style::FormAgain, false) => {
            tx.response_content_type = tx.text.push(b"text/html");
            tx.login.body_hint = BodyHint::Failure; // the form asks for the password
        }
        (Style::Body, good) => {
            tx.login.body_hint = if good { BodyHint::Success } else { BodyHint::Failure };
        }
    }
    tx
}

pub struct Town {
    pub rng: Rng,
    pub style: Style,
    pub events: Vec<(Who, Transaction)>,
    next: u64,
}

const BROWSERS: [(u64, StackClass); 6] = [
    (0xc1, StackClass::Chromium),
    (0xc2, StackClass::Chromium),
    (0xc3, StackClass::Chromium),
    (0xf1, StackClass::Firefox),
    (0x51, StackClass::Safari),
    (0x52, StackClass::Safari),
];

impl Town {
    pub fn new(seed: u64, style: Style) -> Self {
        Self { rng: Rng(seed), style, events: Vec::new(), next: 1 }
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn home(&mut self) -> [u8; 4] {
        let n = self.rng.next();
        [20 + (n % 60) as u8, (n >> 8) as u8, (n >> 16) as u8, 1 + ((n >> 24) % 250) as u8]
    }

    pub fn browser(&mut self, ip: [u8; 4]) -> Client {
        let (fingerprint, stack) = BROWSERS[self.rng.below(6) as usize];
        Client { ip, fingerprint, stack, session: self.fresh(), contradicted: self.rng.chance(0.02) }
    }

    fn page(&mut self, who: Who, c: Client, t: &mut f64) {
        let (path, endpoint) = match self.rng.below(3) {
            0 => ("/".to_owned(), "GET /"),
            1 => (format!("/shop/{}", self.rng.below(500)), "GET /shop/{id}"),
            _ => ("/cart".to_owned(), "GET /cart"),
        };
        self.events.push((who, request(c, *t, "GET", &path, endpoint, true)));
        for _ in 0..3 + self.rng.below(5) {
            *t += self.rng.between(0.01, 0.15);
            self.events.push((who, request(c, *t, "GET", "/static/app.js", "GET /static/{file}", false)));
        }
    }

    /// Somebody browses, logs in, browses. `typos`: chance of each attempt failing; at most `tries`.
    pub fn person(&mut self, who: Who, c: Client, start: f64, typos: f64, tries: u32, user: u64) {
        let mut t = start;
        for _ in 0..self.rng.below(4) {
            self.page(who, c, &mut t);
            t += self.rng.wait(12.0);
        }
        let form = request(c, t, "GET", "/login", "GET /login", true);
        self.events.push((who, form));
        for _ in 0..3 {
            t += 0.05;
            self.events.push((who, request(c, t, "GET", "/static/login.css", "GET /static/{file}", false)));
        }
        for _ in 0..tries {
            t += 3.0 + self.rng.wait(5.0);
            let good = !self.rng.chance(typos);
            let password = if good { user } else { 1_000_000 + self.rng.next() % 1_000_000_000 };
            let tx = login(c, t, self.style, false, user, password, good);
            self.events.push((who, tx));
            if good {
                break;
            }
        }
        for _ in 0..3 + self.rng.below(9) {
            t += self.rng.wait(15.0);
            self.page(who, c, &mut t);
        }
    }

    /// Everybody who lives here: about 60 000 transactions over `hours`.
    pub fn people(&mut self, hours: f64) {
        for _ in 0..(220.0 * hours) as u32 {
            let (ip, user) = (self.home(), self.fresh());
            let (c, start) = (self.browser(ip), self.rng.unit() * hours * 3600.0);
            self.person(Who::Person, c, start, 0.07, 5, user);
        }
        for _ in 0..6 {
            let (ip, user) = (self.home(), self.fresh());
            let (c, start) = (self.browser(ip), self.rng.unit() * hours * 3600.0);
            self.person(Who::Forgetful, c, start, 1.0, 6, user);
        }
        let nine = 3600.0 * hours * 0.4;
        for _ in 0..200 {
            let (c, user) = (self.browser([80, 1, 1, 1]), self.fresh());
            let start = nine + self.rng.unit() * 1200.0;
            self.person(Who::Office, c, start, 0.05, 4, user);
        }
        for _ in 0..(80.0 * hours) as u32 {
            let (ip, user) = (self.home(), self.fresh());
            let c = Client::new(ip, 0xa1, StackClass::App, 0);
            let mut t = self.rng.unit() * hours * 3600.0;
            for _ in 0..4 {
                let good = !self.rng.chance(0.08);
                let password = if good { user } else { 1_000_000 + self.rng.next() % 1_000_000_000 };
                self.events.push((Who::App, login(c, t, self.style, true, user, password, good)));
                t += 2.0 + self.rng.wait(4.0);
                if good {
                    break;
                }
            }
            for _ in 0..20 {
                t += self.rng.wait(5.0);
                self.events.push((Who::App, request(c, t, "GET", "/api/items", "GET /api/items", false)));
            }
        }
        let c = Client::library([90, 2, 2, 2], 0xb1);
        let mut t = 5.0;
        let mut n = 0u32;
        while t < hours * 3600.0 {
            if n.is_multiple_of(600) {
                self.events.push((Who::Partner, login(c, t, self.style, true, 77, 77, true)));
            }
            n += 1;
            t += 2.0 * self.rng.between(0.99, 1.01);
            self.events.push((Who::Partner, request(c, t, "GET", "/api/stock", "GET /api/stock", false)));
        }
    }

    fn bot(&self, ip: [u8; 4], fingerprint: u64, contradicted: bool) -> Client {
        Client { ip, fingerprint, stack: StackClass::Chromium, session: 0, contradicted }
    }

    fn attempt(&mut self, who: Who, c: Client, t: f64, user: u64, password: u64, hits: f64) {
        let good = self.rng.chance(hits);
        let tx = login(c, t, self.style, false, user, password, good);
        self.events.push((who, tx));
    }

    /// `count` attempts (pages loaded first by some) from `start` on.
    pub fn attack(&mut self, who: Who, start: f64, count: u64) {
        let victim = 900_000;
        let mut t = start;
        for i in 0..count {
            let (user, password) = (2_000_000 + self.rng.next() % 1_000_000_000, self.rng.next());
            match who {
                Who::FastStuffing => {
                    t += self.rng.wait(0.5);
                    let c = self.bot([45, 9, 9, 9], 0xe1, false);
                    self.attempt(who, c, t, user, password, 0.02);
                }
                Who::SlowRotating => {
                    // 500 addresses, each every five minutes or so; half load the form first.
                    t += self.rng.wait(300.0 / 500.0);
                    let n = self.rng.below(500);
                    let c = self.bot([46, (n / 4) as u8, (n % 251) as u8, 7], 0xe2, false);
                    if self.rng.chance(0.5) {
                        self.events.push((who, request(c, t, "GET", "/login", "GET /login", true)));
                        t += 0.2;
                    }
                    self.attempt(who, c, t, user, password, 0.02);
                }
                Who::SlowMimic => {
                    // As above, with the stack of the most common browser.
                    t += self.rng.wait(300.0 / 500.0);
                    let n = self.rng.below(500);
                    let c = self.bot([47, (n / 4) as u8, (n % 251) as u8, 7], 0xc1, false);
                    self.attempt(who, c, t, user, password, 0.02);
                }
                Who::Spray => {
                    // Three passwords over everybody, from addresses never used twice, a browser's stack.
                    t += self.rng.wait(2.0);
                    let n = self.rng.next();
                    let c = self.bot([48 + (n % 4) as u8, (n >> 8) as u8, (n >> 16) as u8, 9], 0xc2, false);
                    self.attempt(who, c, t, user, 5 + i / (count / 3 + 1), 0.005);
                }
                Who::BruteForce => {
                    t += self.rng.wait(1.5);
                    let c = self.bot([49, 9, 9, 9], 0xc1, false);
                    self.attempt(who, c, t, victim, password, 0.0);
                }
                Who::BruteRotating => {
                    t += self.rng.wait(6.0);
                    let n = self.rng.below(200);
                    let c = self.bot([52, n as u8, (n * 7) as u8, 3], 0xc3, false);
                    self.attempt(who, c, t, victim + 1, password, 0.0);
                }
                Who::PrefixLow => {
                    // 100 addresses of one /24, each now and then, a browser's stack.
                    t += self.rng.wait(12.0);
                    let last = 20 + self.rng.below(100) as u8;
                    let c = self.bot([53, 9, 9, last], 0xf1, false);
                    self.attempt(who, c, t, user, password, 0.01);
                }
                Who::Scraper => {
                    t += self.rng.between(0.97, 1.03);
                    let c = self.bot([54, 9, 9, 9], 0xe3, true);
                    let path = format!("/shop/{i}");
                    self.events.push((who, request(c, t, "GET", &path, "GET /shop/{id}", i % 2 == 0)));
                }
                _ => panic!("{who:?} attacks nobody"),
            }
        }
    }

    /// Returns the events in the order in which they are scored.
    pub fn sorted(mut self) -> Vec<(Who, Transaction)> {
        self.events.sort_by_key(|(_, tx)| tx.order());
        self.events
    }
}
