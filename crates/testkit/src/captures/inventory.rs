//! An API that is used as APIs are, for the inventory.

use std::fmt::Write as _;

use super::{Capture, ethernet, scripted};
use crate::dialogue::DialogueError;

/// Returns the captures of this file.
pub(super) fn all() -> Result<Vec<Capture>, DialogueError> {
    let mut script = String::new();
    let json = "Content-Type: application/json";
    let bearer = "Authorization: Bearer S3cr3t.T0ken";
    let cookie = "Cookie: theme=dark; sid=S3cr3tS3ss10n";
    let order = "/v1/orders/3f2504e0-4f89-41d3-9a0c-0305e82c3301";
    for (request, headers, body, status) in [
        ("GET /v1/items?page=1&sort=price", "X-Tenant: 17", "", "200 OK"),
        ("GET /v1/items?page=2", "X-Tenant: 18", "", "200 OK"),
        ("GET /v1/items/4711", "X-Api-Key: S3cr3tKey", "", "200 OK"),
        ("GET /v1/items?page=x&api_key=S3cr3tKey", "X-Tenant: a", "", "200 OK"),
        (
            "POST /v1/orders",
            &format!("{json}\n{bearer}"),
            r#"{"items":[{"sku":"a","n":1},{"sku":"b"}],"mail":"ann@example.com","gift":false}"#,
            "201 Created",
        ),
        (
            "POST /v1/orders",
            &format!("{json}\n{bearer}"),
            r#"{"items":[],"mail":"bob@example.com","note":null,"by":{"17":2.5,"18":3}}"#,
            "201 Created",
        ),
        // Not understood: teaches nothing.
        ("POST /v1/orders", &format!("{json}\n{bearer}"), r#"{"itemz":1}"#, "422 Unprocessable Content"),
        (&format!("GET {order}"), bearer, "", "200 OK"),
        ("GET /v1/orders/17", bearer, "", "200 OK"),
        (&format!("DELETE {order}"), "", "", "401 Unauthorized"),
        (
            "POST /session",
            "Content-Type: application/x-www-form-urlencoded",
            "user=ann&password=S3cr3tPassw0rd",
            "303 See Other",
        ),
        ("GET /account", cookie, "", "200 OK"),
        (
            "PUT /account/photo",
            &format!("{cookie}\nContent-Type: multipart/form-data; boundary=B"),
            "--B\nContent-Disposition: form-data; name=\"title\"\n\nme\n--B\nContent-Disposition: form-data; \
             name=\"photo\"; filename=\"S3cr3t.png\"\nContent-Type: image/png\n\nx\n--B--\n",
            "204 No Content",
        ),
        (
            "POST /graphql",
            &format!("{json}\n{bearer}"),
            r#"{"query":"mutation Login($u:String!){login(u:$u){id}}","operationName":"Login","variables":{"u":"S3cr3tUs3r"}}"#,
            "200 OK",
        ),
        ("POST /graphql", &format!("{json}\n{bearer}"), r#"{"query":"{ items { id } }"}"#, "200 OK"),
        // A scanner's guesses.
        ("GET /.git/config", "", "", "404 Not Found"),
        ("GET /wp-login.php?S3cr3tGu3ss", "", "", "404 Not Found"),
    ] {
        let length = body.replace('\n', "\r\n").len();
        let _ = write!(script, ">>>\n{request} HTTP/1.1\nHost: api.example\n");
        if !headers.is_empty() {
            let _ = writeln!(script, "{headers}");
        }
        if !body.is_empty() {
            let _ = writeln!(script, "Content-Length: {length}");
        }
        // A backslash takes the line's end away.
        let end = if body.is_empty() || body.ends_with('\n') { "" } else { "\\\n" };
        let _ = write!(script, "\n{body}{end}<<<\nHTTP/1.1 {status}\n");
        let _ = match status {
            "204 No Content" => writeln!(script),
            _ => write!(script, "{json}\nContent-Length: 2\n\n{{}}\\\n"),
        };
    }
    Ok(vec![ethernet(
        "inventory-api",
        &scripted(&script)?,
        "an API with queries, headers, JSON, form and multipart bodies, two GraphQL operations, four kinds of credentials, a refused body and a scanner's guesses; every secret has S3cr3t in it.",
        "inventory.json holds every endpoint that answered, no guess, and no value.",
    )])
}
