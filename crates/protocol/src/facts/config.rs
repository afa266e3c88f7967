//! What the extractor is told.

/// Names and limits for the extraction of facts.
#[derive(Clone, Debug, PartialEq)]
pub struct FactsConfig {
    /// Networks whose forwarding headers are believed.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Header that names the client (`CF-Connecting-IP`, `True-Client-IP`), believed only from a trusted proxy.
    pub client_header: Option<String>,
    /// Cookies that are sessions, most telling first; where none is there, session-like names are tried.
    pub session_cookies: Vec<String>,
    /// Headers whose value is a session where no cookie is one, most telling first.
    pub session_headers: Vec<String>,
    /// Body and query fields that name the user, most telling first.
    pub user_fields: Vec<String>,
    /// Body and query fields that hold a password, most telling first.
    pub password_fields: Vec<String>,
    /// How much of a body is looked into, before and after decompression.
    pub body_inspect_bytes_max: usize,
    /// How much is kept of each text.
    pub text_bytes_max: usize,
}

impl Default for FactsConfig {
    fn default() -> Self {
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        Self {
            trusted_proxies: Vec::new(),
            client_header: None,
            session_cookies: Vec::new(),
            session_headers: list(&["authorization", "x-api-key"]),
            user_fields: list(&["username", "user", "login", "email"]),
            password_fields: list(&["password", "passwd", "pwd"]),
            body_inspect_bytes_max: 64 << 10,
            text_bytes_max: 8 << 10,
        }
    }
}
