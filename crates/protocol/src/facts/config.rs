//! What the extraction is told.

/// Names and limits for the extraction of facts.
///
/// Field names are compared by their last component, in lower case and without separators:
/// `user[Pass_word]` is `password`, and so is `j_password` behind one or two usual prefixes.
#[derive(Clone, Debug, PartialEq)]
pub struct FactsConfig {
    /// Networks whose forwarding headers are believed.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Header that names the client (`CF-Connecting-IP`, `True-Client-IP`); believed only from a trusted
    /// proxy, and then before X-Forwarded-For and Forwarded. Naming one of these two says that it is the one
    /// that the proxies write, and the other is ignored.
    pub client_header: Option<String>,
    /// Cookies that are sessions, most telling first, case as sent. Where none of them is there, the first
    /// cookie with a session-like name is taken.
    pub session_cookies: Vec<String>,
    /// Headers whose value is a session where no cookie is one, most telling first. `authorization` counts
    /// for its token schemes only.
    pub session_headers: Vec<String>,
    /// Body and query fields that name the user, most telling first. What begins with `/` is a JSON pointer
    /// (RFC 6901) and names a field of JSON bodies by its place ([`check_fields`](super::check_fields)).
    pub user_fields: Vec<String>,
    /// Body and query fields that hold a password, most telling first; pointers as above.
    pub password_fields: Vec<String>,
    /// How much of a body is looked into, after decompression; none of it is kept.
    pub body_inspect_bytes_max: usize,
    /// Names of one request that are handed on for an inventory; more are left out (and said to be). 0: none are
    /// collected.
    pub outline_names_max: usize,
    /// How much is kept of each text; what is longer is cut and marked `text_capped`.
    pub text_bytes_max: usize,
}

const SESSION_HEADERS: &[&str] = &[
    "authorization",
    "x-api-key",
    "api-key",
    "apikey",
    "x-auth-token",
    "x-access-token",
    "x-session-token",
    "x-session-id",
    "x-token",
];

const USER_FIELDS: &[&str] = &[
    "username",
    "user_name",
    "login",
    "email",
    "user",
    "e-mail",
    "email_address",
    "user_email",
    "mail",
    "userid",
    "login_id",
    "login_name",
    "identifier",
    "uname",
    "uid",
    "account",
    "account_name",
    "phone",
    "phone_number",
    "mobile",
    "msisdn",
    "member_id",
    "customer_id",
    "customer_number",
    "nickname",
    "screen_name",
    "log",
    // German, French, Spanish, Italian, Portuguese, Dutch
    "benutzername",
    "benutzer",
    "nutzername",
    "kundennummer",
    "utilisateur",
    "nom_utilisateur",
    "identifiant",
    "courriel",
    "usuario",
    "nombre_usuario",
    "correo",
    "utente",
    "nome_utente",
    "utilizador",
    "gebruikersnaam",
    "gebruiker",
    // Polish, Czech, Swedish, Danish, Norwegian, Finnish, Turkish
    "uzytkownik",
    "użytkownik",
    "uzivatel",
    "uživatel",
    "anvandarnamn",
    "användarnamn",
    "brugernavn",
    "brukernavn",
    "kayttajatunnus",
    "käyttäjätunnus",
    "kullanici",
    "kullanıcı",
    "kullaniciadi",
    // Russian, Chinese, Japanese, Korean
    "логин",
    "пользователь",
    "用户名",
    "账号",
    "ユーザー名",
    "사용자",
    // Drupal and others; last, because sign-up forms use it for people's names
    "name",
];

const PASSWORD_FIELDS: &[&str] = &[
    "password",
    "passwd",
    "pass",
    "pwd",
    "passphrase",
    "passcode",
    "pw",
    "passwrd",
    "pswd",
    "psw",
    // German, French, Spanish, Italian, Portuguese, Dutch
    "passwort",
    "kennwort",
    "mot_de_passe",
    "motpasse",
    "mdp",
    "contrasena",
    "contraseña",
    "clave",
    "senha",
    "palavra_passe",
    "parola_chiave",
    "wachtwoord",
    // Polish, Czech, Swedish, Danish, Norwegian, Finnish, Turkish, Romanian, Hungarian
    "haslo",
    "hasło",
    "heslo",
    "losenord",
    "lösenord",
    "adgangskode",
    "kodeord",
    "passord",
    "salasana",
    "sifre",
    "şifre",
    "parola",
    "jelszo",
    "jelszó",
    // Russian, Chinese, Japanese, Korean
    "пароль",
    "parol",
    "密码",
    "密碼",
    "パスワード",
    "비밀번호",
];

impl Default for FactsConfig {
    fn default() -> Self {
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        Self {
            trusted_proxies: Vec::new(),
            client_header: None,
            session_cookies: Vec::new(),
            session_headers: list(SESSION_HEADERS),
            user_fields: list(USER_FIELDS),
            password_fields: list(PASSWORD_FIELDS),
            body_inspect_bytes_max: 4 << 20,
            outline_names_max: 0,
            text_bytes_max: 8 << 10,
        }
    }
}
