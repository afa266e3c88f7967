//! A small web shop for lab and demos: login, catalogue, stock, cart, and a loan application form.
//!
//! Everything is in memory and bounded: sessions and form tokens beyond their caps push out the oldest.
//! 500 customers (`user1` … `user500`) have passwords derived from their names ([`password_of`]), so that
//! an attack can be given as many right answers as it needs.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, COOKIE, ETAG, IF_NONE_MATCH, LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::rng::Rng;

/// How the shop answers a login that it refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoginStyle {
    /// 401, with a page or JSON.
    #[default]
    Status,
    /// 200, with the form shown again.
    Form,
    /// 302, back to the form.
    Redirect,
    /// 200, with `"success": false` in JSON.
    Json200,
}

/// What kind of shop to run.
#[derive(Clone, Copy, Debug)]
pub struct ShopOptions {
    /// How a refused login is answered.
    pub login_style: LoginStyle,
    /// Makes tokens repeat; without it they are unguessable.
    pub seed: Option<u64>,
    /// Articles in the catalogue, numbered from 1.
    pub items: u32,
    /// Pieces of each article at the start.
    pub stock: u32,
}

impl Default for ShopOptions {
    fn default() -> Self {
        Self { login_style: LoginStyle::Status, seed: None, items: 240, stock: 500 }
    }
}

/// How many customers there are.
pub const CUSTOMERS: u32 = 500;

/// Returns the password of `user`; `None` where there is no such customer.
pub fn password_of(user: &str) -> Option<String> {
    let number: u32 = user.strip_prefix("user")?.parse().ok()?;
    if number == 0 || number > CUSTOMERS || user != format!("user{number}") {
        return None;
    }
    Some(format!("{:012x}", Rng::new(u64::from(number)).fork(0x7061_7373).next_u64() >> 16))
}

/// Answers requests on `listener` until `shutdown` completes, then finishes what is under way.
pub async fn serve(
    listener: TcpListener,
    options: ShopOptions,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(listener, router(options)).with_graceful_shutdown(shutdown).await
}

/// Completes at SIGINT or SIGTERM.
pub async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}

/// Returns the shop as a router, for serving it some other way.
pub fn router(options: ShopOptions) -> Router {
    Router::new()
        .route("/", get(home))
        .route("/login", get(login_form).post(login))
        .route("/api/login", post(api_login))
        .route("/logout", post(logout))
        .route("/account", get(account))
        .route("/catalogue", get(catalogue))
        .route("/item/{id}", get(item))
        .route("/api/stock/{id}", get(stock))
        .route("/cart", get(cart).post(cart_add))
        .route("/api/cart", get(api_cart).post(api_cart_add))
        .route("/api/checkout", post(checkout))
        .route("/apply", get(apply_form).post(apply))
        .route("/static/{file}", get(asset))
        .route("/img/{file}", get(image))
        .route("/healthz", get(|| async { "ok\n" }))
        .fallback(|| async { page(StatusCode::NOT_FOUND, "Not found", "<p>There is no such page.</p>") })
        .with_state(Arc::new(Shop::new(options)))
}

const SESSIONS_MAX: usize = 100_000;
const FORMS_MAX: usize = 100_000;
const APPLICATIONS_MAX: usize = 100_000;
/// Different articles in one cart, and pieces of each.
const CART_LINES_MAX: usize = 50;
const CART_PIECES_MAX: u32 = 20;
const FORM_AGE_MAX: Duration = Duration::from_secs(30 * 60);
const PAGE_ITEMS: u32 = 24;

type Shared = State<Arc<Shop>>;

struct Shop {
    options: ShopOptions,
    hasher: RandomState,
    inner: Mutex<Inner>,
}

struct Inner {
    rng: Rng,
    tokens: u64,
    stock: Vec<u32>,
    orders: u64,
    applications: u64,
    sessions: Capped<Session>,
    forms: Capped<Instant>,
    /// Applicants by e-mail address, to refuse a second application.
    applicants: Capped<u64>,
}

#[derive(Clone, Default)]
struct Session {
    user: Option<String>,
    cart: BTreeMap<u32, u32>,
}

/// A map that forgets its oldest entry when full.
struct Capped<V> {
    map: HashMap<String, V>,
    order: VecDeque<String>,
    max: usize,
}

impl<V> Capped<V> {
    fn new(max: usize) -> Self {
        Self { map: HashMap::new(), order: VecDeque::new(), max }
    }

    fn insert(&mut self, key: String, value: V) {
        if self.map.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > self.max {
            if let Some(oldest) = self.order.pop_front() {
                self.map.remove(&oldest);
            }
        }
    }
}

impl Shop {
    fn new(options: ShopOptions) -> Self {
        let inner = Inner {
            rng: Rng::new(options.seed.unwrap_or_default()),
            tokens: 0,
            stock: vec![options.stock; options.items as usize],
            orders: 0,
            applications: 0,
            sessions: Capped::new(SESSIONS_MAX),
            forms: Capped::new(FORMS_MAX),
            applicants: Capped::new(APPLICATIONS_MAX),
        };
        Self { options, hasher: RandomState::new(), inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns 32 hex digits: out of the seed, or out of a keyed hash with a fresh key.
    fn token(&self, inner: &mut Inner) -> String {
        inner.tokens += 1;
        let (a, b) = match self.options.seed {
            Some(_) => (inner.rng.next_u64(), inner.rng.next_u64()),
            None => (self.hasher.hash_one((inner.tokens, 0)), self.hasher.hash_one((inner.tokens, 1))),
        };
        format!("{a:016x}{b:016x}")
    }

    /// Returns the visitor's session id and, where it is new, the header that sets it.
    fn session(&self, inner: &mut Inner, headers: &HeaderMap) -> (String, Option<String>) {
        if let Some(id) = cookie(headers, "sid")
            && inner.sessions.map.contains_key(id)
        {
            return (id.to_owned(), None);
        }
        let id = self.token(inner);
        inner.sessions.insert(id.clone(), Session::default());
        (id.clone(), Some(session_cookie(&id)))
    }

    fn user(&self, headers: &HeaderMap) -> Option<String> {
        let id = cookie(headers, "sid")?;
        self.lock().sessions.map.get(id)?.user.clone()
    }

    fn price_cents(id: u32) -> u64 {
        499 + Rng::new(u64::from(id)).below(25_000)
    }

    fn name(id: u32) -> String {
        let mut rng = Rng::new(u64::from(id)).fork(1);
        let make = rng.pick(&["Trail", "City", "Alpine", "Harbour", "Meadow", "Studio"]);
        let what = rng.pick(&["runner", "jacket", "backpack", "lamp", "kettle", "headphones", "bottle"]);
        format!("{make} {what} {id}")
    }
}

// ---- pages ----

async fn home(State(shop): Shared, headers: HeaderMap) -> Response {
    let (_, set) = shop.session(&mut shop.lock(), &headers);
    let mut body = String::from("<h1>Welcome</h1><ul class=\"grid\">");
    for id in 1..=shop.options.items.min(8) {
        tile(&mut body, id);
    }
    body.push_str("</ul>");
    with_cookie(page(StatusCode::OK, "Shop", &body), set)
}

async fn catalogue(
    State(shop): Shared,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let (_, set) = shop.session(&mut shop.lock(), &headers);
    let pages = shop.options.items.div_ceil(PAGE_ITEMS).max(1);
    let number = query.get("page").and_then(|p| p.parse().ok()).unwrap_or(1).clamp(1, pages);
    let mut body = format!("<h1>Catalogue, page {number} of {pages}</h1><ul class=\"grid\">");
    let first = (number - 1) * PAGE_ITEMS + 1;
    for id in first..(first + PAGE_ITEMS).min(shop.options.items + 1) {
        tile(&mut body, id);
    }
    body.push_str("</ul>");
    if number < pages {
        let _ = write!(body, "<a rel=\"next\" href=\"/catalogue?page={}\">Next page</a>", number + 1);
    }
    with_cookie(page(StatusCode::OK, "Catalogue", &body), set)
}

async fn item(State(shop): Shared, headers: HeaderMap, Path(id): Path<u32>) -> Response {
    let mut inner = shop.lock();
    let (_, set) = shop.session(&mut inner, &headers);
    let Some(left) = stock_of(&inner, id) else {
        drop(inner);
        return page(StatusCode::NOT_FOUND, "Not found", "<p>There is no such article.</p>");
    };
    drop(inner);
    let name = Shop::name(id);
    let body = format!(
        "<h1>{name}</h1><img src=\"/img/{id}.svg\" alt=\"{name}\" width=\"320\" height=\"240\">\
         <p class=\"price\">{}</p><p>In stock: <span id=\"stock\" data-item=\"{id}\">{left}</span></p>\
         <form method=\"post\" action=\"/cart\"><input type=\"hidden\" name=\"item\" value=\"{id}\">\
         <input type=\"number\" name=\"quantity\" value=\"1\" min=\"1\" max=\"{CART_PIECES_MAX}\">\
         <button>Add to cart</button></form>",
        money(Shop::price_cents(id))
    );
    with_cookie(page(StatusCode::OK, &name, &body), set)
}

async fn account(State(shop): Shared, headers: HeaderMap) -> Response {
    match shop.user(&headers) {
        Some(user) => {
            let body = format!(
                "<h1>Hello, {}</h1><form method=\"post\" action=\"/logout\"><button>Sign out</button></form>",
                escape(&user)
            );
            page(StatusCode::OK, "Your account", &body)
        }
        None => redirect("/login"),
    }
}

async fn cart(State(shop): Shared, headers: HeaderMap) -> Response {
    let mut inner = shop.lock();
    let (id, set) = shop.session(&mut inner, &headers);
    let lines = inner.sessions.map.get(&id).map(|s| s.cart.clone()).unwrap_or_default();
    drop(inner);
    let mut body = String::from("<h1>Your cart</h1><table><tr><th>Article<th>Pieces<th>Price</tr>");
    let mut total = 0;
    for (id, pieces) in lines {
        let price = Shop::price_cents(id) * u64::from(pieces);
        total += price;
        let _ = write!(
            body,
            "<tr><td><a href=\"/item/{id}\">{}</a><td>{pieces}<td>{}</tr>",
            Shop::name(id),
            money(price)
        );
    }
    let _ = write!(body, "</table><p>Total: {}</p><button data-checkout>Buy</button>", money(total));
    with_cookie(page(StatusCode::OK, "Your cart", &body), set)
}

async fn cart_add(State(shop): Shared, headers: HeaderMap, body: Bytes) -> Response {
    let fields = fields(&headers, &body);
    match add(&shop, &headers, &fields) {
        Ok((_, set)) => with_cookie(see_other("/cart"), set),
        Err((status, what)) => page(status, "Your cart", &format!("<p class=\"error\">{what}</p>")),
    }
}

async fn login_form(Query(query): Query<HashMap<String, String>>) -> Response {
    let error = query.get("error").map(|_| WRONG_LOGIN);
    page(StatusCode::OK, "Sign in", &sign_in_form("", error))
}

async fn login(State(shop): Shared, headers: HeaderMap, body: Bytes) -> Response {
    let json = is_json(&headers);
    let fields = fields(&headers, &body);
    sign_in(&shop, &headers, &fields, json)
}

async fn logout(State(shop): Shared, headers: HeaderMap) -> Response {
    if let Some(id) = cookie(&headers, "sid")
        && let Some(session) = shop.lock().sessions.map.get_mut(id)
    {
        session.user = None;
    }
    see_other("/")
}

async fn apply_form(State(shop): Shared, headers: HeaderMap) -> Response {
    let mut inner = shop.lock();
    let (_, set) = shop.session(&mut inner, &headers);
    let token = shop.token(&mut inner);
    inner.forms.insert(token.clone(), now());
    drop(inner);
    let body = format!(
        "<h1>Apply for a loan</h1><form method=\"post\" action=\"/apply\">\
         <input type=\"hidden\" name=\"form_token\" value=\"{token}\">\
         <label>Name <input name=\"name\" autocomplete=\"name\" required></label>\
         <label>E-mail <input name=\"email\" type=\"email\" required></label>\
         <label>Phone <input name=\"phone\" type=\"tel\" required></label>\
         <label>Address <input name=\"address\" required></label>\
         <label>Amount <input name=\"amount\" type=\"number\" min=\"500\" max=\"50000\" required></label>\
         <button>Apply</button></form>"
    );
    with_cookie(page(StatusCode::OK, "Apply for a loan", &body), set)
}

async fn apply(State(shop): Shared, headers: HeaderMap, body: Bytes) -> Response {
    let json_wanted = is_json(&headers);
    let fields = fields(&headers, &body);
    let result = take_application(&shop, &fields);
    match (result, json_wanted) {
        (Ok(number), false) => {
            let text = format!("<h1>Thank you</h1><p>Your application has the number LN-{number:06}.</p>");
            page(StatusCode::CREATED, "Thank you", &text)
        }
        (Ok(number), true) => reply_json(
            StatusCode::CREATED,
            &json!({"application": format!("LN-{number:06}"), "state": "received"}),
        ),
        (Err((status, what)), false) => page(
            status,
            "Apply for a loan",
            &format!("<p class=\"error\">{what}</p><a href=\"/apply\">Back</a>"),
        ),
        (Err((status, what)), true) => reply_json(status, &json!({"error": what})),
    }
}

// ---- API ----

async fn api_login(State(shop): Shared, headers: HeaderMap, body: Bytes) -> Response {
    let fields = fields(&headers, &body);
    sign_in(&shop, &headers, &fields, true)
}

async fn stock(State(shop): Shared, Path(id): Path<u32>) -> Response {
    match stock_of(&shop.lock(), id) {
        Some(left) => reply_json(
            StatusCode::OK,
            &json!({"item": id, "stock": left, "price_cents": Shop::price_cents(id), "available": left > 0}),
        ),
        None => reply_json(StatusCode::NOT_FOUND, &json!({"error": "no such article"})),
    }
}

async fn api_cart(State(shop): Shared, headers: HeaderMap) -> Response {
    let mut inner = shop.lock();
    let (id, set) = shop.session(&mut inner, &headers);
    let cart = cart_json(inner.sessions.map.get(&id));
    drop(inner);
    with_cookie(reply_json(StatusCode::OK, &cart), set)
}

async fn api_cart_add(State(shop): Shared, headers: HeaderMap, body: Bytes) -> Response {
    let fields = fields(&headers, &body);
    match add(&shop, &headers, &fields) {
        Ok((cart, set)) => with_cookie(reply_json(StatusCode::CREATED, &cart), set),
        Err((status, what)) => reply_json(status, &json!({"error": what})),
    }
}

/// Buys the whole cart or nothing.
async fn checkout(State(shop): Shared, headers: HeaderMap) -> Response {
    let mut guard = shop.lock();
    let inner = &mut *guard;
    let session = cookie(&headers, "sid").and_then(|id| inner.sessions.map.get_mut(id));
    let Some(session) = session.filter(|s| s.user.is_some()) else {
        return reply_json(StatusCode::UNAUTHORIZED, &json!({"error": "sign in first"}));
    };
    if session.cart.is_empty() {
        return reply_json(StatusCode::BAD_REQUEST, &json!({"error": "the cart is empty"}));
    }
    let place = |id: &u32| (*id as usize).checked_sub(1);
    let short = session
        .cart
        .iter()
        .find(|(id, pieces)| place(id).and_then(|i| inner.stock.get(i)).is_none_or(|left| left < pieces));
    if let Some((id, _)) = short {
        return reply_json(StatusCode::CONFLICT, &json!({"error": "sold out", "item": id}));
    }
    let mut total = 0;
    for (id, pieces) in std::mem::take(&mut session.cart) {
        total += Shop::price_cents(id) * u64::from(pieces);
        if let Some(left) = place(&id).and_then(|i| inner.stock.get_mut(i)) {
            *left -= pieces;
        }
    }
    inner.orders += 1;
    let order = format!("OR-{:06}", inner.orders);
    reply_json(StatusCode::CREATED, &json!({"order": order, "total_cents": total}))
}

// ---- what pages and API share ----

const WRONG_LOGIN: &str = "Wrong user name or password.";

fn sign_in(
    shop: &Shop,
    headers: &HeaderMap,
    fields: &HashMap<String, String>,
    json_wanted: bool,
) -> Response {
    let field = |names: [&str; 3]| names.iter().find_map(|n| fields.get(*n)).map_or("", String::as_str);
    let user = field(["username", "email", "user"]);
    let password = field(["password", "pass", "pwd"]);
    let good = password_of(user).is_some_and(|p| p == password);
    if !good {
        let style = shop.options.login_style;
        return match (style, json_wanted) {
            (LoginStyle::Json200, _) => {
                reply_json(StatusCode::OK, &json!({"success": false, "error": "invalid_credentials"}))
            }
            (_, true) => reply_json(
                StatusCode::UNAUTHORIZED,
                &json!({"error": "invalid_credentials", "message": WRONG_LOGIN}),
            ),
            (LoginStyle::Status, false) => {
                page(StatusCode::UNAUTHORIZED, "Sign in", &sign_in_form(user, Some(WRONG_LOGIN)))
            }
            (LoginStyle::Form, false) => {
                page(StatusCode::OK, "Sign in", &sign_in_form(user, Some(WRONG_LOGIN)))
            }
            (LoginStyle::Redirect, false) => redirect("/login?error=1"),
        };
    }
    // A new id at login, so that an id planted before it is worth nothing; the cart moves along.
    let mut inner = shop.lock();
    let old = cookie(headers, "sid").and_then(|id| inner.sessions.map.get(id)).cloned().unwrap_or_default();
    let id = shop.token(&mut inner);
    inner.sessions.insert(id.clone(), Session { user: Some(user.to_owned()), cart: old.cart });
    drop(inner);
    let reply = if json_wanted || shop.options.login_style == LoginStyle::Json200 {
        reply_json(StatusCode::OK, &json!({"success": true, "token": id, "user": user}))
    } else {
        redirect("/account")
    };
    with_cookie(reply, Some(session_cookie(&id)))
}

type Refusal = (StatusCode, &'static str);

fn add(
    shop: &Shop,
    headers: &HeaderMap,
    fields: &HashMap<String, String>,
) -> Result<(Value, Option<String>), Refusal> {
    let number = |name: &str| fields.get(name).and_then(|v| v.parse::<u32>().ok());
    let id = number("item").ok_or((StatusCode::BAD_REQUEST, "which article?"))?;
    let pieces = number("quantity").unwrap_or(1).clamp(1, CART_PIECES_MAX);
    let mut inner = shop.lock();
    let left = stock_of(&inner, id).ok_or((StatusCode::NOT_FOUND, "no such article"))?;
    let (session_id, set) = shop.session(&mut inner, headers);
    let Some(session) = inner.sessions.map.get_mut(&session_id) else {
        return Err((StatusCode::INTERNAL_SERVER_ERROR, "the session is gone"));
    };
    if session.cart.len() >= CART_LINES_MAX && !session.cart.contains_key(&id) {
        return Err((StatusCode::CONFLICT, "the cart is full"));
    }
    let wanted = (session.cart.get(&id).copied().unwrap_or(0) + pieces).min(CART_PIECES_MAX);
    if wanted > left {
        return Err((StatusCode::CONFLICT, "sold out"));
    }
    session.cart.insert(id, wanted);
    let cart = cart_json(Some(session));
    Ok((cart, set))
}

fn take_application(shop: &Shop, fields: &HashMap<String, String>) -> Result<u64, Refusal> {
    const BAD: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;
    let text = |name: &str| fields.get(name).map(|v| v.trim()).filter(|v| !v.is_empty() && v.len() <= 200);
    let mut inner = shop.lock();
    let token = text("form_token").ok_or((StatusCode::FORBIDDEN, "the form has expired"))?;
    let fetched = inner.forms.map.remove(token).ok_or((StatusCode::FORBIDDEN, "the form has expired"))?;
    if now().duration_since(fetched) > FORM_AGE_MAX {
        return Err((StatusCode::FORBIDDEN, "the form has expired"));
    }
    for (name, refusal) in [
        ("name", "a name is needed"),
        ("phone", "a phone number is needed"),
        ("address", "an address is needed"),
    ] {
        text(name).ok_or((BAD, refusal))?;
    }
    let email = text("email").filter(|e| e.contains('@')).ok_or((BAD, "an e-mail address is needed"))?;
    let amount = text("amount").and_then(|a| a.parse::<u32>().ok());
    amount.filter(|a| (500..=50_000).contains(a)).ok_or((BAD, "the amount is out of range"))?;
    if inner.applicants.map.contains_key(email) {
        return Err((StatusCode::CONFLICT, "there is an application under this address"));
    }
    inner.applications += 1;
    let number = inner.applications;
    inner.applicants.insert(email.to_owned(), number);
    Ok(number)
}

fn stock_of(inner: &Inner, id: u32) -> Option<u32> {
    inner.stock.get((id as usize).checked_sub(1)?).copied()
}

fn cart_json(session: Option<&Session>) -> Value {
    let lines: Vec<Value> = session
        .into_iter()
        .flat_map(|s| &s.cart)
        .map(|(id, n)| json!({"item": id, "quantity": n, "price_cents": Shop::price_cents(*id)}))
        .collect();
    json!({"lines": lines})
}

// ---- static files ----

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:64rem;padding:0 1rem}\n\
nav a{margin-right:1rem}\n.grid{display:grid;grid-template-columns:repeat(4,1fr);gap:1rem;list-style:none;padding:0}\n\
.price{font-weight:700}\n.error{color:#a00}\nlabel{display:block;margin:.5rem 0}\n";

const SCRIPT: &str = "const stock=document.querySelector('#stock');\n\
if(stock){setInterval(async()=>{const r=await fetch('/api/stock/'+stock.dataset.item);\n\
if(r.ok){stock.textContent=(await r.json()).stock}},15000)}\n\
document.querySelector('[data-checkout]')?.addEventListener('click',async()=>{\n\
const r=await fetch('/api/checkout',{method:'POST'});\n\
if(r.status===401){location='/login'}else{alert(r.ok?'Thank you':(await r.json()).error)}});\n";

const LOGO: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 64 64\"><path d=\"M8 20h48l-6 36H14z\"/>\
<path d=\"M22 24v-8a10 10 0 0 1 20 0v8\" fill=\"none\" stroke=\"#000\" stroke-width=\"4\"/></svg>\n";

async fn asset(headers: HeaderMap, Path(file): Path<String>) -> Response {
    match file.as_str() {
        "app.css" => cached(&headers, "text/css", STYLE.to_owned()),
        "app.js" => cached(&headers, "text/javascript", SCRIPT.to_owned()),
        "logo.svg" => cached(&headers, "image/svg+xml", LOGO.to_owned()),
        _ => page(StatusCode::NOT_FOUND, "Not found", "<p>There is no such file.</p>"),
    }
}

/// A picture of an article: coloured shapes out of its number.
async fn image(State(shop): Shared, headers: HeaderMap, Path(file): Path<String>) -> Response {
    let id = file.strip_suffix(".svg").and_then(|n| n.parse::<u32>().ok());
    let Some(id) = id.filter(|id| (1..=shop.options.items).contains(id)) else {
        return page(StatusCode::NOT_FOUND, "Not found", "<p>There is no such picture.</p>");
    };
    let mut rng = Rng::new(u64::from(id)).fork(2);
    let mut svg = String::from("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 320 240\">");
    for _ in 0..rng.between(20, 90) {
        let _ = write!(
            svg,
            "<circle cx=\"{}\" cy=\"{}\" r=\"{}\" fill=\"hsl({} 60% 60%)\"/>",
            rng.below(320),
            rng.below(240),
            rng.between(4, 40),
            rng.below(360)
        );
    }
    svg.push_str("</svg>\n");
    cached(&headers, "image/svg+xml", svg)
}

fn cached(headers: &HeaderMap, kind: &'static str, body: String) -> Response {
    let sum =
        body.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let etag = format!("\"{sum:016x}\"");
    let fresh = headers.get(IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == etag.as_bytes());
    let headers = [(ETAG, etag), (CACHE_CONTROL, "public, max-age=300".to_owned())];
    if fresh {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, [(CONTENT_TYPE, kind)], body).into_response()
}

// ---- helpers ----

fn page(status: StatusCode, title: &str, body: &str) -> Response {
    let html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{}</title>\
         <link rel=\"stylesheet\" href=\"/static/app.css\"><link rel=\"icon\" href=\"/static/logo.svg\">\
         <script src=\"/static/app.js\" defer></script></head><body><nav><a href=\"/\">Shop</a>\
         <a href=\"/catalogue\">Catalogue</a><a href=\"/cart\">Cart</a><a href=\"/apply\">Loans</a>\
         <a href=\"/account\">Account</a></nav><main>{body}</main></body></html>\n",
        escape(title)
    );
    (status, [(CONTENT_TYPE, "text/html; charset=utf-8"), (CACHE_CONTROL, "no-cache")], html).into_response()
}

fn sign_in_form(user: &str, error: Option<&str>) -> String {
    let error = error.map(|e| format!("<p class=\"error\" role=\"alert\">{e}</p>")).unwrap_or_default();
    format!(
        "<h1>Sign in</h1>{error}<form method=\"post\" action=\"/login\">\
         <label>User name <input name=\"username\" autocomplete=\"username\" value=\"{}\"></label>\
         <label>Password <input name=\"password\" type=\"password\" autocomplete=\"current-password\"></label>\
         <button>Sign in</button></form>",
        escape(user)
    )
}

fn tile(out: &mut String, id: u32) {
    let name = Shop::name(id);
    let _ = write!(
        out,
        "<li><a href=\"/item/{id}\"><img src=\"/img/{id}.svg\" alt=\"\" width=\"160\" height=\"120\">{name}</a>\
         <span class=\"price\">{}</span></li>",
        money(Shop::price_cents(id))
    );
}

fn reply_json(status: StatusCode, value: &Value) -> Response {
    (status, [(CACHE_CONTROL, "no-store")], axum::Json(value)).into_response()
}

fn redirect(to: &'static str) -> Response {
    (StatusCode::FOUND, [(LOCATION, to)]).into_response()
}

fn see_other(to: &'static str) -> Response {
    (StatusCode::SEE_OTHER, [(LOCATION, to)]).into_response()
}

fn with_cookie(mut response: Response, set: Option<String>) -> Response {
    if let Some(value) = set.and_then(|v| HeaderValue::try_from(v).ok()) {
        response.headers_mut().append(SET_COOKIE, value);
    }
    response
}

fn session_cookie(id: &str) -> String {
    format!("sid={id}; Path=/; HttpOnly; SameSite=Lax")
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|k| k.trim().eq_ignore_ascii_case("application/json"))
}

/// Returns the fields of a form, or the texts and numbers of a JSON object.
fn fields(headers: &HeaderMap, body: &[u8]) -> HashMap<String, String> {
    if !is_json(headers) {
        return form_urlencoded::parse(body).into_owned().collect();
    }
    let Ok(Value::Object(map)) = serde_json::from_slice(body) else { return HashMap::new() };
    map.into_iter()
        .filter_map(|(key, value)| match value {
            Value::String(text) => Some((key, text)),
            Value::Number(number) => Some((key, number.to_string())),
            _ => None,
        })
        .collect()
}

fn money(cents: u64) -> String {
    format!("€{}.{:02}", cents / 100, cents % 100)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[expect(clippy::disallowed_methods, reason = "the shop is a live server: the age of a form is real time")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn ask(to: SocketAddr, head: &str, cookie: &str, body: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(to).await.unwrap();
        let text = format!(
            "{head} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\nCookie: {cookie}\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n{body}",
            if body.starts_with('{') { "application/json" } else { "application/x-www-form-urlencoded" },
            body.len()
        );
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while stream.read_buf(&mut answer).await.unwrap() > 0 {}
        String::from_utf8(answer).unwrap()
    }

    fn sid(answer: &str) -> String {
        let at = answer.find("sid=").unwrap();
        answer[at..at + 36].to_owned()
    }

    fn with_shop<F: Future<Output = ()>>(login_style: LoginStyle, test: impl FnOnce(SocketAddr) -> F) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let to = listener.local_addr().unwrap();
            let options = ShopOptions { login_style, seed: Some(1), stock: 3, ..ShopOptions::default() };
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let shop = tokio::spawn(serve(listener, options, async {
                let _ = stopped.await;
            }));
            test(to).await;
            stop.send(()).unwrap();
            shop.await.unwrap().unwrap();
        });
    }

    #[test]
    fn only_customers_have_passwords() {
        assert_ne!(password_of("user1"), password_of("user500"));
        for user in ["user0", "user501", "user01", "user+1", "root", ""] {
            assert_eq!(password_of(user), None, "{user}");
        }
    }

    #[test]
    fn refused_logins_are_answered_in_the_chosen_style() {
        for (style, form, api) in [
            (LoginStyle::Status, "HTTP/1.1 401", "HTTP/1.1 401"),
            (LoginStyle::Form, "HTTP/1.1 200", "HTTP/1.1 401"),
            (LoginStyle::Redirect, "HTTP/1.1 302", "HTTP/1.1 401"),
            (LoginStyle::Json200, "HTTP/1.1 200", "HTTP/1.1 200"),
        ] {
            with_shop(style, |to| async move {
                let refused = ask(to, "POST /login", "", "username=user1&password=x").await;
                assert!(refused.starts_with(form) && !refused.contains("set-cookie"), "{style:?} {refused}");
                let refused = ask(to, "POST /api/login", "", r#"{"username":"user1","password":"x"}"#).await;
                assert!(refused.starts_with(api) && !refused.contains("set-cookie"), "{style:?} {refused}");
                let password = password_of("user1").unwrap();
                let body = format!("username=user1&password={password}");
                let good = ask(to, "POST /login", "", &body).await;
                assert!(good.contains("set-cookie: sid="), "{style:?} {good}");
                let account = ask(to, "GET /account", &sid(&good), "").await;
                assert!(account.contains("Hello, user1"), "{account}");
            });
        }
    }

    #[test]
    fn buying_takes_from_the_stock_until_it_is_gone() {
        with_shop(LoginStyle::Status, |to| async move {
            let body = format!(r#"{{"username":"user2","password":"{}"}}"#, password_of("user2").unwrap());
            let cookie = sid(&ask(to, "POST /api/login", "", &body).await);
            let add = ask(to, "POST /api/cart", &cookie, r#"{"item":5,"quantity":2}"#).await;
            assert!(add.starts_with("HTTP/1.1 201"), "{add}");
            assert!(ask(to, "GET /cart", &cookie, "").await.contains("/item/5"));
            assert!(ask(to, "POST /api/checkout", "", "").await.starts_with("HTTP/1.1 401"));
            assert!(ask(to, "POST /api/checkout", &cookie, "").await.starts_with("HTTP/1.1 201"));
            assert!(ask(to, "GET /api/stock/5", "", "").await.contains("\"stock\":1"));
            let more = ask(to, "POST /api/cart", &cookie, r#"{"item":5,"quantity":2}"#).await;
            assert!(more.starts_with("HTTP/1.1 409"), "{more}");
            assert!(
                ask(to, "POST /api/cart", &cookie, r#"{"item":99999}"#).await.starts_with("HTTP/1.1 404")
            );
        });
    }

    #[test]
    fn an_application_needs_a_fresh_form_and_is_taken_once() {
        with_shop(LoginStyle::Status, |to| async move {
            let form = ask(to, "GET /apply", "", "").await;
            let at = form.find("form_token\" value=\"").unwrap() + 19;
            let token = form[at..at + 32].to_owned();
            let fields = "name=A&email=a%40b.example&phone=1&address=x&amount=1000";
            let body = format!("{fields}&form_token={token}");
            assert!(ask(to, "POST /apply", "", &body).await.contains("LN-000001"));
            assert!(ask(to, "POST /apply", "", &body).await.starts_with("HTTP/1.1 403"));
            assert!(ask(to, "POST /apply", "", fields).await.starts_with("HTTP/1.1 403"));
        });
    }

    #[test]
    fn static_files_are_revalidated_and_pages_escape() {
        with_shop(LoginStyle::Form, |to| async move {
            let first = ask(to, "GET /static/app.css", "", "").await;
            let at = first.find("etag: ").unwrap() + 6;
            let etag = &first[at..at + 18];
            let again =
                ask(to, &format!("GET /static/app.css HTTP/1.1\r\nIf-None-Match: {etag}\r\nX:"), "", "")
                    .await;
            assert!(again.starts_with("HTTP/1.1 304"), "{again}");
            let page = ask(to, "POST /login", "", "username=%22%3E%3Cscript%3E&password=x").await;
            assert!(page.contains("&quot;&gt;&lt;script&gt;") && !page.contains("\"><script>"));
            assert!(ask(to, "GET /img/9.svg", "", "").await.contains("<circle"));
            assert!(ask(to, "GET /catalogue?page=2", "", "").await.contains("/item/25\""));
        });
    }
}
