//! Who makes the traffic: people, offices, apps, partners, and attackers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::TrafficOptions;
use super::site::{self, Body, Browser, CLAIMED_CHROME, Purpose, Reply, Request, Site, Stack};
use super::wire::{Close, Conn, Exchange, Wire};
use crate::measure::Truth;
use crate::rng::Rng;

const SECOND: u64 = 1_000_000_000;
const MILLI: u64 = 1_000_000;
/// The server closes a connection that was idle this long.
const KEEP_ALIVE: u64 = 60 * SECOND;
/// Requests on one connection before the server closes it.
const REQUESTS_MAX: u32 = 100;

/// Everything generated so far.
pub(super) struct World {
    pub(super) wire: Wire,
    pub(super) rows: Vec<Truth>,
    /// Share of assets that are fetched rather than revalidated, and a factor on their size.
    assets: (f64, f64),
    end: u64,
    start_secs: u64,
    /// Transactions that the running kind may still make.
    left: u64,
    label: &'static str,
}

/// A client's address, with its next ephemeral port: shared by all behind one NAT.
#[derive(Clone, Copy, Debug)]
struct Address {
    ip: IpAddr,
    port: u16,
}

/// One running client program: its connections and what it knows.
struct Client {
    stack: Stack,
    site: Site,
    rtt: u64,
    connections_max: usize,
    connections: Vec<Conn>,
    cookie: String,
    bearer: String,
}

impl World {
    pub(super) fn new(options: &TrafficOptions, assets: (f64, f64)) -> Self {
        Self {
            wire: Wire::new(),
            rows: Vec::new(),
            assets,
            end: options.duration_secs * SECOND,
            start_secs: options.start.as_nanos() / SECOND,
            left: 0,
            label: "",
        }
    }

    /// Lets clients of one kind make exactly `count` transactions.
    pub(super) fn run(&mut self, mut rng: Rng, label: &'static str, count: u64) {
        self.left = count;
        self.label = label;
        let mut office = Vec::new();
        while self.left > 0 {
            match label {
                "person" => {
                    let mut address = Address::person(&mut rng);
                    self.browse(&mut rng, &mut address);
                }
                "office" => self.office(&mut rng, &mut office),
                "app" => self.app(&mut rng),
                "partner" => self.partners(&mut rng, count),
                "ato-fast" => self.stuff_fast(&mut rng, count),
                "ato-slow" => self.stuff_slow(&mut rng, count),
                "spray" => self.spray(&mut rng, count),
                _ => self.brute(&mut rng, count),
            }
        }
    }

    /// One person's visit, from the first page to the last.
    fn browse(&mut self, rng: &mut Rng, address: &mut Address) {
        let site = if rng.percent(70.0) { Site::Shop } else { Site::Outlet };
        let mut client = Client::new(Stack::Browser(Browser::random(rng)), site, rng);
        client.connections_max = 4;
        client.cookie = format!("vid={:016x}", rng.next_u64());
        let mut now = rng.below(self.end * 97 / 100);
        let mut referer = String::new();
        let pages = 1 + rng.exponential(4.0) as u64;
        let login_at = if rng.percent(30.0) { rng.below(pages.min(4)) } else { u64::MAX };
        let mut cold = true;
        for page in 0..pages {
            if self.left == 0 || now > self.end {
                break;
            }
            if page == login_at {
                now = self.sign_in(rng, address, &mut client, now, &mut referer);
            }
            let path = match rng.below(10) {
                0 | 1 => "/".to_owned(),
                2..=4 => format!("/catalogue?page={}", 1 + rng.below(20)),
                5 if page > 0 => "/cart".to_owned(),
                _ => format!("/item/{}", 1 + rng.below(800)),
            };
            now = self.page(rng, address, &mut client, now, &path, &mut referer, cold);
            cold = false;
            if path.starts_with("/item/") && rng.percent(25.0) {
                let body = format!(
                    "{{\"item\":{},\"quantity\":{}}}",
                    path.trim_start_matches("/item/"),
                    rng.between(1, 3)
                );
                let request =
                    Request::post(site, "/api/cart", Purpose::Call, ("application/json", body.as_bytes()));
                let reply = Reply::new(201, "application/json", json(rng, 60, 240));
                now = self.ask(rng, address, &mut client, now + 800 * MILLI, &referer, request, reply);
            }
            // People read: 2 s at least, 12 s on average.
            now += 2 * SECOND + (rng.exponential(10.0) * SECOND as f64) as u64;
        }
        client.leave(self, rng, now);
    }

    /// A page, then its assets and calls over parallel connections. Returns when all are there.
    #[expect(clippy::too_many_arguments, reason = "one call site; a struct would only rename them")]
    fn page(
        &mut self,
        rng: &mut Rng,
        address: &mut Address,
        client: &mut Client,
        now: u64,
        path: &str,
        referer: &mut String,
        cold: bool,
    ) -> u64 {
        let len = (700.0 + rng.exponential(1300.0)) as usize;
        let body = if rng.percent(12.0) { Body::Chunked(len) } else { Body::Filler(len) };
        let mut reply = Reply::new(200, "text/html; charset=utf-8", body).with("Cache-Control", "no-cache");
        if cold {
            reply = reply.with("Set-Cookie", &format!("{}; Path=/; Max-Age=31536000", client.cookie));
        }
        let site = client.site;
        let loaded =
            self.ask(rng, address, client, now, referer, Request::get(site, path, Purpose::Page), reply);
        *referer = format!("https://{}{path}", site.host());
        let mut done = loaded;
        let assets = if cold { rng.between(4, 9) } else { rng.between(0, 4) };
        for i in 0..assets {
            let (target, dest, kind, mean) = match i {
                0 => ("/static/app.css?v=41".to_owned(), "style", "text/css", 9_000.0),
                1 => ("/static/app.js?v=41".to_owned(), "script", "text/javascript", 24_000.0),
                2 => ("/static/vendor.js?v=17".to_owned(), "script", "text/javascript", 48_000.0),
                _ => (format!("/img/{}.webp", 1 + rng.below(3000)), "image", "image/webp", 16_000.0),
            };
            let etag = format!("\"{:012x}\"", rng.next_u64() >> 16);
            let size = ((mean * 0.3 + rng.exponential(mean * 0.7)) * self.assets.1) as usize;
            let fetched = rng.percent(self.assets.0 * 100.0);
            let mut request = Request::get(site, &target, Purpose::Asset(dest));
            let reply = if fetched {
                Reply::new(200, kind, Body::Filler(size)).with("ETag", &etag)
            } else {
                request.etag = &etag;
                Reply::new(304, "", Body::None).with("ETag", &etag)
            };
            let at = loaded + rng.between(2, 30) * MILLI;
            done = done.max(self.ask(rng, address, client, at, referer, request, reply));
        }
        let calls = if path.starts_with("/item/") { 2 } else { rng.below(2) };
        for _ in 0..calls {
            let target = match rng.below(3) {
                0 => "/api/cart".to_owned(),
                1 => format!("/api/recommendations?for={}", rng.below(800)),
                _ => format!("/api/stock/{}", 1 + rng.below(800)),
            };
            let reply =
                Reply::new(200, "application/json", json(rng, 40, 500)).with("Cache-Control", "no-store");
            let request = Request::get(site, &target, Purpose::Call);
            let at = loaded + rng.between(60, 400) * MILLI;
            done = done.max(self.ask(rng, address, client, at, referer, request, reply));
        }
        done
    }

    /// A person's login: the form, some typing, and a second try where the first was mistyped.
    fn sign_in(
        &mut self,
        rng: &mut Rng,
        address: &mut Address,
        client: &mut Client,
        now: u64,
        referer: &mut String,
    ) -> u64 {
        let path = client.site.login_path();
        let mut now = self.page(rng, address, client, now, path, referer, false);
        let user = person_name(rng);
        let password = format!("{:x}", rng.next_u64());
        for _ in 0..3 {
            now += 4 * SECOND + (rng.exponential(5.0) * SECOND as f64) as u64;
            let good = rng.percent(88.0);
            now = self.log_in(rng, address, client, now, referer, (&user, &password), good);
            if good || self.left == 0 || rng.percent(20.0) {
                break;
            }
        }
        now
    }

    /// One login request in the manner of the client's site, and the answer.
    #[expect(
        clippy::too_many_arguments,
        reason = "every part varies by caller; a struct would only rename them"
    )]
    fn log_in(
        &mut self,
        rng: &mut Rng,
        address: &mut Address,
        client: &mut Client,
        now: u64,
        referer: &str,
        (user, password): (&str, &str),
        good: bool,
    ) -> u64 {
        if self.left == 0 {
            return now;
        }
        let site = client.site;
        let session = format!("sid={:016x}{:016x}", rng.next_u64(), rng.next_u64());
        let cookie = format!("{session}; Path=/; HttpOnly; Secure; SameSite=Lax");
        let encoded = user.replace('@', "%40");
        let (body, kind) = match site {
            Site::Api => {
                (format!("{{\"username\":\"{user}\",\"password\":\"{password}\"}}"), "application/json")
            }
            _ => {
                let token = rng.next_u64();
                let body = format!("csrf={token:016x}&username={encoded}&password={password}");
                (body, "application/x-www-form-urlencoded")
            }
        };
        let html = "text/html; charset=utf-8";
        let reply = match (site, good) {
            (Site::Api, true) => {
                let token = format!("{:016x}{:016x}", rng.next_u64(), rng.next_u64());
                client.bearer = format!("Bearer {token}");
                let text =
                    format!("{{\"token\":\"{token}\",\"expires_in\":3600,\"user\":{{\"name\":\"{user}\"}}}}");
                Reply::new(200, "application/json", Body::Text(text)).with("Cache-Control", "no-store")
            }
            (Site::Api, false) => {
                let text =
                    "{\"error\":\"invalid_credentials\",\"message\":\"Wrong e-mail address or password\"}";
                Reply::new(401, "application/json", Body::Text(text.to_owned()))
                    .with("Cache-Control", "no-store")
            }
            (Site::Shop, true) => Reply::new(302, html, Body::Text(String::new()))
                .with("Location", "/account")
                .with("Set-Cookie", &cookie),
            (Site::Shop, false) => {
                Reply::new(302, html, Body::Text(String::new())).with("Location", "/login?error=1")
            }
            (Site::Outlet, true) => Reply::new(303, html, Body::Text(String::new()))
                .with("Location", "/account")
                .with("Set-Cookie", &cookie),
            (Site::Outlet, false) => {
                let text = format!(
                    "<!doctype html><title>Sign in</title><form method=\"post\" action=\"/account/signin\">\
                     <p class=\"error\" role=\"alert\">Wrong e-mail address or password.</p>\
                     <input type=\"hidden\" name=\"csrf\" value=\"{:016x}\"><input name=\"username\" type=\"email\" \
                     value=\"{user}\"><input name=\"password\" type=\"password\"><button>Sign in</button></form>",
                    rng.next_u64()
                );
                Reply::new(200, html, Body::Text(text))
            }
        };
        let purpose = if site == Site::Api { Purpose::Call } else { Purpose::Page };
        let request = Request::post(site, site.login_path(), purpose, (kind, body.as_bytes()));
        let done = self.ask(rng, address, client, now, referer, request, reply);
        if let Some(row) = self.rows.last_mut() {
            row.login = Some(if good { "success" } else { "failure" }.to_owned());
            row.user = Some(user.to_owned());
        }
        if good && site != Site::Api {
            client.cookie =
                if client.cookie.is_empty() { session } else { format!("{}; {session}", client.cookie) };
        }
        done
    }

    /// One of twelve offices: many people behind one address.
    fn office(&mut self, rng: &mut Rng, offices: &mut Vec<Address>) {
        if offices.is_empty() {
            for i in 0..12 {
                let ip = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 10 + i * 7));
                offices.push(Address { ip, port: rng.between(20_000, 60_000) as u16 });
            }
        }
        let at = rng.below(offices.len() as u64) as usize;
        if let Some(address) = offices.get_mut(at) {
            self.browse(rng, address);
        }
    }

    /// One run of the shop's phone app.
    fn app(&mut self, rng: &mut Rng) {
        let stack = if rng.percent(60.0) { Stack::OkHttp } else { Stack::CfNetwork };
        let mut address = Address::person(rng);
        let mut client = Client::new(stack, Site::Api, rng);
        client.bearer = format!("Bearer {:016x}{:016x}", rng.next_u64(), rng.next_u64());
        let mut now = rng.below(self.end * 97 / 100);
        if rng.percent(15.0) {
            let (user, password) = (person_name(rng), format!("{:x}", rng.next_u64()));
            client.bearer.clear();
            for _ in 0..2 {
                let good = rng.percent(90.0);
                now = self.log_in(rng, &mut address, &mut client, now, "", (&user, &password), good);
                if good {
                    break;
                }
                now += 6 * SECOND + rng.below(8 * SECOND);
            }
        }
        for _ in 0..rng.between(4, 40) {
            if self.left == 0 || now > self.end {
                break;
            }
            let (target, len) = match rng.below(5) {
                0 => ("/api/v2/feed".to_owned(), 2400),
                1 => (format!("/api/v2/search?q=shoe{}", rng.below(50)), 1200),
                2 => ("/api/v2/cart".to_owned(), 300),
                3 => (format!("/api/v2/items/{}/stock", rng.below(800)), 60),
                _ => (format!("/api/v2/items/{}", rng.below(800)), 700),
            };
            let reply = Reply::new(200, "application/json", json(rng, len / 2, len))
                .with("Cache-Control", "no-store");
            let request = Request::get(Site::Api, &target, Purpose::Call);
            now = self.ask(rng, &mut address, &mut client, now, "", request, reply);
            now += 200 * MILLI + (rng.exponential(4.0) * SECOND as f64) as u64;
        }
        client.leave(self, rng, now);
    }

    /// Six partners that poll stock and send orders, evenly over the whole time.
    fn partners(&mut self, rng: &mut Rng, count: u64) {
        for i in 0..6u8 {
            let share = (count / 6 + u64::from(u64::from(i) < count % 6)).min(self.left);
            let stack = [Stack::Java, Stack::Requests, Stack::Go][usize::from(i % 3)];
            let mut address = Address { ip: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 20 + i)), port: 30_000 };
            let mut client = Client::new(stack, Site::Api, rng);
            client.connections_max = 4;
            client.bearer = format!("key-{:016x}", rng.next_u64());
            let step = self.end * 98 / 100 / share.max(1);
            let mut now = rng.below(SECOND);
            for k in 0..share {
                let order = k % 10 == 9;
                let target = if order {
                    "/api/partner/orders".to_owned()
                } else {
                    format!("/api/partner/stock?sku={}", 100_000 + rng.below(5000))
                };
                let body =
                    format!("{{\"sku\":{},\"quantity\":{}}}", 100_000 + rng.below(5000), rng.between(1, 40));
                let request = if order {
                    Request::post(Site::Api, &target, Purpose::Call, ("application/json", body.as_bytes()))
                } else {
                    Request::get(Site::Api, &target, Purpose::Call)
                };
                let status = if order { 201 } else { 200 };
                let reply = Reply::new(status, "application/json", json(rng, 80, 700));
                self.ask(rng, &mut address, &mut client, now, "", request, reply);
                now += step / 2 + rng.below(step.max(1));
            }
            client.leave(self, rng, now);
        }
    }

    /// Three addresses, several tries a second, one user after the other.
    fn stuff_fast(&mut self, rng: &mut Rng, count: u64) {
        let mut bots: Vec<(Address, Client)> = Vec::new();
        for i in 0..3u8 {
            let stack = if i == 2 { Stack::FakeChrome(CLAIMED_CHROME) } else { Stack::Requests };
            bots.push((Address::attacker(rng), Client::new(stack, Site::Api, rng)));
        }
        // Six a second, or as fast as needed to be done within two thirds of the time.
        let step = (SECOND / 6).min(self.end * 2 / 3 / count.max(1));
        let mut now = self.end / 5;
        while self.left > 0 {
            for (address, client) in &mut bots {
                let (user, password) = leaked(rng);
                let good = rng.percent(1.0);
                self.log_in(rng, address, client, now, "", (&user, &password), good);
                client.bearer.clear();
                now += step / 2 + rng.below(step.max(1));
            }
        }
        for (_, client) in bots {
            client.leave(self, rng, now);
        }
    }

    /// Many addresses, each a try every few minutes, all with one stack; a third load the form first.
    fn stuff_slow(&mut self, rng: &mut Rng, count: u64) {
        let tries = 5;
        let stack = Stack::FakeChrome(CLAIMED_CHROME);
        for _ in 0..count.div_ceil(tries) {
            let mut address = Address::attacker(rng);
            let gap = self.end / (tries + 1);
            let mut now = rng.below(gap);
            for _ in 0..tries {
                if self.left == 0 {
                    return;
                }
                let mut client = Client::new(stack, Site::Shop, rng);
                let (user, password) = leaked(rng);
                if rng.percent(30.0) {
                    let reply = Reply::new(200, "text/html; charset=utf-8", Body::Filler(1900));
                    let request = Request::get(Site::Shop, "/login", Purpose::Page);
                    now = self.ask(rng, &mut address, &mut client, now, "", request, reply) + SECOND;
                }
                let good = rng.percent(1.0);
                now = self.log_in(rng, &mut address, &mut client, now, "", (&user, &password), good);
                client.leave(self, rng, now);
                now += gap / 2 + rng.below(gap);
            }
        }
    }

    /// One password over many users, from ten addresses in turn.
    fn spray(&mut self, rng: &mut Rng, count: u64) {
        let mut bots: Vec<(Address, Client)> =
            (0..10).map(|_| (Address::attacker(rng), Client::new(Stack::Go, Site::Outlet, rng))).collect();
        let step = self.end * 4 / 5 / count.max(1);
        let mut now = self.end / 10;
        while self.left > 0 {
            for (address, client) in &mut bots {
                let user = person_name(rng);
                client.cookie.clear();
                let good = rng.percent(0.5);
                self.log_in(rng, address, client, now, "", (&user, "Autumn2026%21"), good);
                now += step / 2 + rng.below(step.max(1));
            }
        }
        for (_, client) in bots {
            client.leave(self, rng, now);
        }
    }

    /// Many passwords for one user, from two addresses, three a second.
    fn brute(&mut self, rng: &mut Rng, count: u64) {
        let user = person_name(rng);
        let mut bots: Vec<(Address, Client)> =
            (0..2).map(|_| (Address::attacker(rng), Client::new(Stack::Requests, Site::Shop, rng))).collect();
        let step = (SECOND / 3).min(self.end / 2 / count.max(1));
        let mut now = self.end * 2 / 5;
        while self.left > 0 {
            for (address, client) in &mut bots {
                let password =
                    format!("{}{}", rng.pick(&["summer", "dragon", "letmein", "qwerty"]), rng.below(10_000));
                let good = self.left == 1;
                self.log_in(rng, address, client, now, "", (&user, &password), good);
                now += step / 2 + rng.below(step.max(1));
            }
        }
        for (_, client) in bots {
            client.leave(self, rng, now);
        }
    }

    /// Sends one request and its reply on one of the client's connections; notes the truth.
    /// Returns when the client has the reply. Does nothing where the kind has used up its transactions.
    #[expect(clippy::too_many_arguments, reason = "the one place where everything meets")]
    fn ask(
        &mut self,
        rng: &mut Rng,
        address: &mut Address,
        client: &mut Client,
        now: u64,
        referer: &str,
        request: Request<'_>,
        reply: Reply,
    ) -> u64 {
        if self.left == 0 {
            return now;
        }
        self.left -= 1;
        let tx = self.rows.len() as u32;
        let mark = if request.target.contains('?') { '&' } else { '?' };
        let target = format!("{}{mark}tx={tx}", request.target);
        let request = Request { referer, cookie: &client.cookie, bearer: &client.bearer, ..request };
        let request_at = self.wire.arena.len();
        let request_head = site::write_request(&mut self.wire.arena, &client.stack, &request, &target);
        let response_at = self.wire.arena.len();
        let think = if request.body.is_some() { rng.between(20, 120) } else { rng.between(1, 45) } * MILLI;
        let date = self.start_secs + (now + think) / SECOND;
        let response_head = site::write_reply(&mut self.wire.arena, &reply, date, rng);
        let exchange = Exchange {
            tx,
            request: request_at..response_at,
            request_head,
            think,
            response: response_at..self.wire.arena.len(),
            response_head,
            filler_at: filler_of(&request),
            filler_len: if let Body::Filler(len) = reply.body { len } else { 0 },
        };
        self.rows.push(Truth {
            tx: u64::from(tx),
            label: self.label.to_owned(),
            client: address.ip.to_string(),
            method: request.method.to_owned(),
            target,
            host: request.site.host().to_owned(),
            status: reply.status,
            request_body: request.body.map_or(0, |(_, b)| b.len() as u64),
            response_body: reply.body_len() as u64,
            ..Truth::default()
        });
        let at = client.connection(self, rng, address, now);
        match client.connections.get_mut(at) {
            Some(conn) => self.wire.exchange(conn, now, &exchange),
            None => now,
        }
    }
}

impl Client {
    fn new(stack: Stack, site: Site, rng: &mut Rng) -> Self {
        Self {
            stack,
            site,
            rtt: rng.between(8, 90) * MILLI,
            connections_max: 1,
            connections: Vec::new(),
            cookie: String::new(),
            bearer: String::new(),
        }
    }

    /// Returns the place of a connection to use at `now`: one that is free, else a new one, else the one
    /// that is free first. Connections that were idle or used for too long are closed before.
    fn connection(&mut self, world: &mut World, rng: &mut Rng, address: &mut Address, now: u64) -> usize {
        let (old, kept): (Vec<_>, Vec<_>) = self
            .connections
            .drain(..)
            .partition(|c| c.requests >= REQUESTS_MAX || now > c.free_at + KEEP_ALIVE);
        self.connections = kept;
        for conn in old {
            let at = if conn.requests >= REQUESTS_MAX { conn.free_at } else { conn.free_at + KEEP_ALIVE };
            world.wire.close(conn, at, Close::Server);
        }
        let first =
            self.connections.iter().enumerate().min_by_key(|(_, c)| c.free_at).map(|(i, c)| (i, c.free_at));
        match first {
            Some((at, free_at)) if free_at <= now || self.connections.len() >= self.connections_max => at,
            _ => {
                let server = match address.ip {
                    IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10)),
                    IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 10)),
                };
                let (from, to) =
                    (SocketAddr::new(address.ip, address.next_port()), SocketAddr::new(server, 80));
                self.connections.push(world.wire.open(from, to, self.rtt, now, rng));
                self.connections.len() - 1
            }
        }
    }

    /// Closes most connections, in the ways clients do; some are just left.
    fn leave(self, world: &mut World, rng: &mut Rng, now: u64) {
        for conn in self.connections {
            match rng.below(20) {
                0 => world.wire.close(conn, now, Close::Reset),
                1..=8 => {
                    let at = conn.free_at + KEEP_ALIVE;
                    world.wire.close(conn, at, Close::Server);
                }
                9..=17 => world.wire.close(conn, now, Close::Client),
                _ => {}
            }
        }
    }
}

impl Address {
    /// A person's: nine in ten IPv4, out of the shared address space (RFC 6598).
    fn person(rng: &mut Rng) -> Self {
        let ip = if rng.percent(90.0) {
            IpAddr::V4(Ipv4Addr::from_bits(0x6440_0000 | rng.below(1 << 22) as u32))
        } else {
            let part = |rng: &mut Rng| rng.next_u32() as u16;
            let (site, a, b) = (part(rng) & 0x7fff, part(rng), part(rng));
            IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, site, 1, a, b, 0, 1))
        };
        Self { ip, port: rng.between(32_768, 60_000) as u16 }
    }

    /// An attacker's: out of the range for benchmarks (RFC 2544).
    fn attacker(rng: &mut Rng) -> Self {
        let ip = IpAddr::V4(Ipv4Addr::from_bits(0xc612_0000 | rng.below(1 << 17) as u32));
        Self { ip, port: rng.between(32_768, 60_000) as u16 }
    }

    /// Ports go round 1024..=65535; a round is longer than any generated office needs in a minute.
    const fn next_port(&mut self) -> u16 {
        self.port = if self.port == u16::MAX { 1024 } else { self.port + 1 };
        self.port
    }
}

/// Returns where in the filler a body begins: pages share a template, a file is always the same.
fn filler_of(request: &Request<'_>) -> u32 {
    match request.purpose {
        Purpose::Asset(_) => {
            let hash = request.target.bytes().fold(17u32, |h, b| h.wrapping_mul(0x0100_0193) ^ u32::from(b));
            hash >> 12
        }
        Purpose::Page | Purpose::Call => 0,
    }
}

fn json(rng: &mut Rng, low: u64, high: u64) -> Body {
    let len = rng.between(low.max(30), high.max(30)) as usize;
    let mut text = String::with_capacity(len + 40);
    text.push_str("{\"items\":[");
    while text.len() + 70 < len {
        text.push_str("{\"id\":");
        text.push_str(&rng.below(800).to_string());
        text.push_str(",\"name\":\"");
        let name: &&str = rng.pick(&["Trail runner", "City jacket", "Alpine lamp"]);
        text.push_str(name);
        text.push_str("\",\"currency\":\"EUR\",\"stock\":");
        text.push_str(&rng.below(99).to_string());
        text.push_str("},");
    }
    while text.len() + 30 < len {
        text.push_str("{\"id\":1,\"stock\":0},");
    }
    text.push_str("{\"id\":0}]}");
    Body::Text(text)
}

/// One of 20000 customers.
fn person_name(rng: &mut Rng) -> String {
    let first = rng.pick(&["anna", "ben", "carla", "deniz", "emma", "finn", "greta", "hugo", "ida", "jan"]);
    format!("{first}.{}@mail.example", rng.below(2000))
}

/// A line of a leaked list: some of the names are customers.
fn leaked(rng: &mut Rng) -> (String, String) {
    let user = if rng.percent(40.0) {
        person_name(rng)
    } else {
        format!(
            "{}{}@leak.example",
            rng.pick(&["sunny", "gamer", "kate", "max", "lola"]),
            rng.below(1_000_000)
        )
    };
    (user, format!("{}{}", rng.pick(&["hunter", "love", "monkey", "pass"]), rng.below(1_000_000)))
}
