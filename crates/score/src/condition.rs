//! The condition language of policies: parsed and type-checked at load, run as a small program.
//!
//! ```text
//! condition := and ("||" and)*          and := unary ("&&" unary)*
//! unary     := "!" unary | "(" condition ")" | "true" | "false" | test
//! test      := value (("==" | "!=" | "<" | "<=" | ">" | ">=") value)?  |  value "in" "[" literal ("," literal)* "]"
//!            | text "." ("startsWith" | "endsWith" | "contains") "(" string ")"  |  "anomaly" "(" string ")"
//! value     := number | string | field
//! ```
//! Evaluation neither allocates nor fails: an entity that a transaction lacks counts as 0, an absent text
//! as "". Limits: [`TEXT_BYTES_MAX`] of text, [`DEPTH_MAX`] levels, [`LIST_MAX`] list members.

use std::ops::Range;

use offpath_types::{Anomaly, EntityKind};

use crate::entity::{Fact, facts_of};
use crate::signals::Signal;

/// Longest condition, in bytes.
const TEXT_BYTES_MAX: usize = 4096;
/// Deepest nesting of parentheses and negations.
const DEPTH_MAX: usize = 32;
/// Longest list after `in`.
const LIST_MAX: usize = 256;

/// What is wrong with a condition, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (at {}..{})", span.start, span.end)]
pub struct ConditionError {
    /// Bytes of the condition's text that are meant.
    pub span: Range<usize>,
    /// What is wrong, for people; includes the nearest name where there is one.
    pub message: String,
    /// The nearest name that exists, where a name is unknown.
    pub nearest: Option<String>,
}

/// A number that a condition can read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Number {
    Literal(f64),
    Confidence,
    Status,
    RequestBytes,
    ResponseBytes,
    Points(Signal),
    Value(Signal),
    Entity(EntityKind, Fact),
}

/// A text that a condition can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    Endpoint,
    Method,
    Path,
    Domain,
    UserAgent,
    LoginOutcome,
}

/// A truth that a condition can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flag {
    Login,
    Complete,
    Navigation,
    StackContradicted,
    AccountAtRisk,
    Anomaly(Anomaly),
}

/// Where a condition reads its values.
pub(crate) trait Facts {
    fn number(&self, number: Number) -> f64;
    fn text(&self, text: Text) -> &[u8];
    fn flag(&self, flag: Flag) -> bool;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
}

impl Order {
    fn holds(self, a: f64, b: f64) -> bool {
        match self {
            Self::Eq => a == b,
            Self::Ne => a != b,
            Self::Lt => a < b,
            Self::Le => a <= b,
            Self::Gt => a > b,
            Self::Ge => a >= b,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TextTest {
    Equals,
    StartsWith,
    EndsWith,
    Contains,
}

/// One step. There is one register, the truth of the last test; jumps give `&&` and `||` their short cut.
#[derive(Clone, Debug, PartialEq)]
enum Op {
    Set(bool),
    Not,
    JumpIf { truth: bool, to: u32 },
    Flag(Flag),
    Compare { a: Number, order: Order, b: Number },
    Text { text: Text, test: TextTest, want: Box<[u8]> },
    InNumbers { a: Number, list: Box<[f64]> },
    InTexts { text: Text, list: Box<[Box<[u8]>]> },
}

/// A compiled condition. Compares by its source text.
#[derive(Clone, Debug)]
pub struct Condition {
    source: String,
    // Invariant: jumps go forward, so a run takes at most `ops.len()` steps.
    ops: Box<[Op]>,
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Condition {
    /// Parses and type-checks `text`.
    pub fn compile(text: &str) -> Result<Self, ConditionError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(error(
                TEXT_BYTES_MAX..text.len(),
                format!("condition is longer than {TEXT_BYTES_MAX} bytes"),
            ));
        }
        let tokens = tokens(text)?;
        let mut parser = Parser { tokens, at: 0, ops: Vec::new(), depth: 0, end: text.len() };
        parser.condition()?;
        if let Some((token, span)) = parser.peek() {
            let message = format!("expected `&&`, `||` or the end, found {token}");
            return Err(error(span, message));
        }
        Ok(Self { source: text.to_owned(), ops: parser.ops.into() })
    }

    /// Returns the text that was compiled.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Returns every field name that a condition may use, for documentation and completion.
    /// `anomaly("…")` is not among them.
    pub fn field_names() -> Vec<String> {
        let mut names: Vec<String> =
            NUMBERS.iter().map(|n| n.0).chain(TEXTS.iter().map(|n| n.0)).map(str::to_owned).collect();
        names.extend(FLAGS.iter().map(|n| n.0.to_owned()));
        for signal in Signal::ALL {
            names.push(format!("signals.{}", signal.name()));
            names.push(format!("{}.value", signal.name()));
        }
        for kind in EntityKind::ALL {
            names.extend(facts_of(kind).map(|(name, _)| format!("{}.{name}", kind.name())));
        }
        names
    }

    pub(crate) fn holds(&self, facts: &impl Facts) -> bool {
        let mut truth = false;
        let mut at = 0;
        while let Some(op) = self.ops.get(at) {
            at += 1;
            match op {
                Op::Set(b) => truth = *b,
                Op::Not => truth = !truth,
                Op::JumpIf { truth: when, to } => {
                    if truth == *when {
                        at = *to as usize;
                    }
                }
                Op::Flag(flag) => truth = facts.flag(*flag),
                Op::Compare { a, order, b } => truth = order.holds(number(facts, *a), number(facts, *b)),
                Op::Text { text, test, want } => {
                    let have = facts.text(*text);
                    truth = match test {
                        TextTest::Equals => *have == **want,
                        TextTest::StartsWith => have.starts_with(want),
                        TextTest::EndsWith => have.ends_with(want),
                        TextTest::Contains => crate::config::contains(have, want),
                    };
                }
                Op::InNumbers { a, list } => {
                    let a = number(facts, *a);
                    truth = list.contains(&a);
                }
                Op::InTexts { text, list } => {
                    let have = facts.text(*text);
                    truth = list.iter().any(|want| **want == *have);
                }
            }
        }
        truth
    }
}

fn number(facts: &impl Facts, number: Number) -> f64 {
    match number {
        Number::Literal(n) => n,
        other => facts.number(other),
    }
}

const NUMBERS: [(&str, Number); 4] = [
    ("confidence", Number::Confidence),
    ("status", Number::Status),
    ("request_body_bytes", Number::RequestBytes),
    ("response_body_bytes", Number::ResponseBytes),
];
const TEXTS: [(&str, Text); 6] = [
    ("endpoint", Text::Endpoint),
    ("method", Text::Method),
    ("path", Text::Path),
    ("domain", Text::Domain),
    ("user_agent", Text::UserAgent),
    ("login.outcome", Text::LoginOutcome),
];
const FLAGS: [(&str, Flag); 5] = [
    ("login", Flag::Login),
    ("complete", Flag::Complete),
    ("navigation", Flag::Navigation),
    ("stack_contradicted", Flag::StackContradicted),
    ("account_at_risk", Flag::AccountAtRisk),
];
/// What `login.outcome` can be; "" where the transaction is no login.
const OUTCOMES: [&str; 3] = ["success", "failure", "unknown"];

enum Field {
    Number(Number),
    Text(Text),
    Flag(Flag),
}

/// Resolves a dotted name without a method call.
fn field(name: &str) -> Option<Field> {
    if let Some((_, n)) = NUMBERS.iter().find(|(have, _)| *have == name) {
        return Some(Field::Number(*n));
    }
    if let Some((_, t)) = TEXTS.iter().find(|(have, _)| *have == name) {
        return Some(Field::Text(*t));
    }
    if let Some((_, f)) = FLAGS.iter().find(|(have, _)| *have == name) {
        return Some(Field::Flag(*f));
    }
    let signal = |name: &str| Signal::ALL.iter().copied().find(|s| s.name() == name);
    if let Some(rest) = name.strip_prefix("signals.") {
        return Some(Field::Number(match rest.strip_suffix(".value") {
            Some(rest) => Number::Value(signal(rest)?),
            None => Number::Points(signal(rest.strip_suffix(".points").unwrap_or(rest))?),
        }));
    }
    if let Some(rest) = name.strip_suffix(".value") {
        return Some(Field::Number(Number::Value(signal(rest)?)));
    }
    let (kind, fact) = name.split_once('.')?;
    let kind = EntityKind::ALL.into_iter().find(|k| k.name() == kind)?;
    let (_, fact) = facts_of(kind).find(|(have, _)| *have == fact)?;
    Some(Field::Number(Number::Entity(kind, fact)))
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(String),
    Number(f64),
    Text(String),
    /// `( ) [ ] , . ! && || == != < <= > >=`
    Sign(&'static str),
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(n) => write!(f, "`{n}`"),
            Self::Number(n) => write!(f, "the number {n}"),
            Self::Text(t) => write!(f, "the string {t:?}"),
            Self::Sign(s) => write!(f, "`{s}`"),
        }
    }
}

/// Longest first, so that `<=` is not read as `<`.
const SIGNS: [&str; 15] = ["&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "(", ")", "[", "]", ",", "."];

fn error(span: Range<usize>, message: impl Into<String>) -> ConditionError {
    ConditionError { span, message: message.into(), nearest: None }
}

fn tokens(text: &str) -> Result<Vec<(Token, Range<usize>)>, ConditionError> {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(&c) = bytes.get(at) {
        let start = at;
        if c.is_ascii_whitespace() {
            at += 1;
            continue;
        }
        if c.is_ascii_alphabetic() || c == b'_' {
            while bytes.get(at).is_some_and(|c| c.is_ascii_alphanumeric() || *c == b'_') {
                at += 1;
            }
            out.push((Token::Name(text[start..at].to_owned()), start..at));
        } else if c.is_ascii_digit() || (c == b'-' && bytes.get(at + 1).is_some_and(u8::is_ascii_digit)) {
            at += 1;
            while bytes.get(at).is_some_and(|c| c.is_ascii_digit() || *c == b'.' || *c == b'_') {
                at += 1;
            }
            let digits = text[start..at].replace('_', "");
            let Ok(n) = digits.parse::<f64>() else {
                return Err(error(start..at, format!("`{}` is no number", &text[start..at])));
            };
            out.push((Token::Number(n), start..at));
        } else if c == b'"' || c == b'\'' {
            at += 1;
            let mut value = String::new();
            loop {
                let Some(ch) = text[at..].chars().next() else {
                    return Err(error(start..text.len(), "string without an end"));
                };
                at += ch.len_utf8();
                if ch == char::from(c) {
                    break;
                }
                if ch != '\\' {
                    value.push(ch);
                    continue;
                }
                let Some(escaped) = text[at..].chars().next() else {
                    return Err(error(start..text.len(), "string without an end"));
                };
                match escaped {
                    '\\' | '"' | '\'' => value.push(escaped),
                    _ => {
                        let span = at - 1..at + escaped.len_utf8();
                        return Err(error(span, "unknown escape; known are \\\\, \\\" and \\'"));
                    }
                }
                at += escaped.len_utf8();
            }
            out.push((Token::Text(value), start..at));
        } else if let Some(sign) = SIGNS.iter().find(|s| bytes[at..].starts_with(s.as_bytes())) {
            at += sign.len();
            out.push((Token::Sign(sign), start..at));
        } else {
            let ch = text[at..].chars().next().unwrap_or('?');
            let hint = match ch {
                '=' => "; did you mean `==`?",
                '&' => "; did you mean `&&`?",
                '|' => "; did you mean `||`?",
                _ => "",
            };
            return Err(error(at..at + ch.len_utf8(), format!("unexpected `{ch}`{hint}")));
        }
    }
    Ok(out)
}

/// One side of a test.
enum Value {
    Number(Number),
    Literal(String),
    Text(Text),
    Flag(Flag),
}

impl Value {
    const fn type_name(&self) -> &'static str {
        match self {
            Self::Number(_) => "a number",
            Self::Literal(_) | Self::Text(_) => "a string",
            Self::Flag(_) => "true or false",
        }
    }
}

struct Parser {
    tokens: Vec<(Token, Range<usize>)>,
    at: usize,
    ops: Vec<Op>,
    depth: usize,
    end: usize,
}

impl Parser {
    fn peek(&self) -> Option<(&Token, Range<usize>)> {
        self.tokens.get(self.at).map(|(t, s)| (t, s.clone()))
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self.tokens.get(self.at), Some((Token::Sign(s), _)) if *s == sign)
    }

    fn take_sign(&mut self, sign: &str) -> bool {
        let found = self.is_sign(sign);
        self.at += usize::from(found);
        found
    }

    fn need_sign(&mut self, sign: &str) -> Result<(), ConditionError> {
        if self.take_sign(sign) { Ok(()) } else { Err(self.unexpected(&format!("`{sign}`"))) }
    }

    fn unexpected(&self, wanted: &str) -> ConditionError {
        match self.peek() {
            Some((token, span)) => error(span, format!("expected {wanted}, found {token}")),
            None => error(self.end..self.end, format!("expected {wanted}, found the end")),
        }
    }

    fn chain(
        &mut self,
        sign: &str,
        truth: bool,
        part: fn(&mut Self) -> Result<(), ConditionError>,
    ) -> Result<(), ConditionError> {
        let mut jumps = Vec::new();
        part(self)?;
        while self.take_sign(sign) {
            jumps.push(self.ops.len());
            self.ops.push(Op::JumpIf { truth, to: 0 });
            part(self)?;
        }
        let end = self.ops.len() as u32;
        for jump in jumps {
            self.ops[jump] = Op::JumpIf { truth, to: end };
        }
        Ok(())
    }

    fn condition(&mut self) -> Result<(), ConditionError> {
        self.chain("||", true, Self::and)
    }

    fn and(&mut self) -> Result<(), ConditionError> {
        self.chain("&&", false, Self::unary)
    }

    fn unary(&mut self) -> Result<(), ConditionError> {
        let span = self.peek().map_or(self.end..self.end, |(_, s)| s);
        if self.depth >= DEPTH_MAX {
            return Err(error(span, format!("nested deeper than {DEPTH_MAX} levels")));
        }
        self.depth += 1;
        if self.take_sign("!") {
            self.unary()?;
            self.ops.push(Op::Not);
        } else if self.take_sign("(") {
            self.condition()?;
            self.need_sign(")")?;
        } else {
            self.test()?;
        }
        self.depth -= 1;
        Ok(())
    }

    fn test(&mut self) -> Result<(), ConditionError> {
        if let Some((Token::Name(name), _)) = self.tokens.get(self.at)
            && (name == "true" || name == "false")
        {
            let truth = name == "true";
            self.at += 1;
            self.ops.push(Op::Set(truth));
            return Ok(());
        }
        let (value, span, call) = self.value()?;
        if let Some((call, call_span)) = call {
            return self.text_call(value, span, &call, call_span);
        }
        if let Some((Token::Name(name), _)) = self.tokens.get(self.at)
            && name == "in"
        {
            self.at += 1;
            return self.list(value, span);
        }
        let order = match self.tokens.get(self.at) {
            Some((Token::Sign(sign), _)) => match *sign {
                "==" => Some(Order::Eq),
                "!=" => Some(Order::Ne),
                "<" => Some(Order::Lt),
                "<=" => Some(Order::Le),
                ">" => Some(Order::Gt),
                ">=" => Some(Order::Ge),
                _ => None,
            },
            _ => None,
        };
        let Some(order) = order else {
            return match value {
                Value::Flag(flag) => {
                    self.ops.push(Op::Flag(flag));
                    Ok(())
                }
                other => Err(error(span, format!("{} needs a comparison", other.type_name()))),
            };
        };
        self.at += 1;
        self.compare(value, span, order)
    }

    fn compare(&mut self, a: Value, span: Range<usize>, order: Order) -> Result<(), ConditionError> {
        if let Value::Flag(flag) = a {
            let truth = match self.tokens.get(self.at) {
                Some((Token::Name(n), _)) if n == "true" => true,
                Some((Token::Name(n), _)) if n == "false" => false,
                _ => return Err(self.unexpected("`true` or `false`")),
            };
            self.at += 1;
            self.ops.push(Op::Flag(flag));
            match (order, truth) {
                (Order::Eq, true) | (Order::Ne, false) => {}
                (Order::Eq, false) | (Order::Ne, true) => self.ops.push(Op::Not),
                _ => return Err(error(span, "true and false have no order; use `==` or `!=`")),
            }
            return Ok(());
        }
        let (b, b_span, call) = self.value()?;
        if let Some((name, call_span)) = call {
            return Err(error(call_span, format!("`{name}` cannot follow a comparison")));
        }
        match (a, b) {
            (Value::Number(a), Value::Number(b)) => self.ops.push(Op::Compare { a, order, b }),
            (Value::Text(text), Value::Literal(want)) | (Value::Literal(want), Value::Text(text)) => {
                if !matches!(order, Order::Eq | Order::Ne) {
                    return Err(error(span, "strings have no order; use `==` or `!=`"));
                }
                outcome_exists(text, &want, &b_span)?;
                let want = want.into_bytes().into();
                self.ops.push(Op::Text { text, test: TextTest::Equals, want });
                if order == Order::Ne {
                    self.ops.push(Op::Not);
                }
            }
            (Value::Literal(_), Value::Literal(_)) => {
                return Err(error(span.start..b_span.end, "compares two constants"));
            }
            (Value::Text(_), Value::Text(_)) => {
                return Err(error(b_span, "a string field is compared with a constant only"));
            }
            (a, b) => {
                let message = format!("expected {}, found {}", a.type_name(), b.type_name());
                return Err(error(b_span, message));
            }
        }
        Ok(())
    }

    fn text_call(
        &mut self,
        value: Value,
        span: Range<usize>,
        call: &str,
        call_span: Range<usize>,
    ) -> Result<(), ConditionError> {
        let Some((_, test)) = CALLS.iter().find(|(name, _)| *name == call) else {
            let names = CALLS.iter().map(|(name, _)| (*name).to_owned());
            return Err(unknown("function", call, call_span, names));
        };
        let Value::Text(text) = value else {
            return Err(error(span, format!("`{call}` needs a string field, found {}", value.type_name())));
        };
        self.need_sign("(")?;
        let Some((Token::Text(want), _)) = self.tokens.get(self.at) else {
            return Err(self.unexpected("a string"));
        };
        let want = want.clone().into_bytes().into();
        self.at += 1;
        self.need_sign(")")?;
        self.ops.push(Op::Text { text, test: *test, want });
        Ok(())
    }

    fn list(&mut self, value: Value, span: Range<usize>) -> Result<(), ConditionError> {
        self.need_sign("[")?;
        let mut numbers = Vec::new();
        let mut texts: Vec<Box<[u8]>> = Vec::new();
        loop {
            let Some((token, item_span)) = self.tokens.get(self.at) else {
                return Err(self.unexpected("a member of the list"));
            };
            match (token, &value) {
                (Token::Number(n), Value::Number(_)) => numbers.push(*n),
                (Token::Text(t), Value::Text(text)) => {
                    outcome_exists(*text, t, item_span)?;
                    texts.push(t.clone().into_bytes().into());
                }
                (Token::Number(_) | Token::Text(_), _) => {
                    let message = format!("list of {token}, but the left side is {}", value.type_name());
                    return Err(error(item_span.clone(), message));
                }
                _ => return Err(self.unexpected("a number or a string")),
            }
            if numbers.len().max(texts.len()) > LIST_MAX {
                return Err(error(item_span.clone(), format!("list longer than {LIST_MAX}")));
            }
            self.at += 1;
            if self.take_sign("]") {
                break;
            }
            self.need_sign(",")?;
        }
        match value {
            Value::Number(a) => self.ops.push(Op::InNumbers { a, list: numbers.into() }),
            Value::Text(text) => self.ops.push(Op::InTexts { text, list: texts.into() }),
            other => return Err(error(span, format!("`in` cannot follow {}", other.type_name()))),
        }
        Ok(())
    }

    /// Reads a literal or a field; for `field.function`, the function's name comes third.
    #[expect(clippy::type_complexity, reason = "used in two places, both here")]
    fn value(&mut self) -> Result<(Value, Range<usize>, Option<(String, Range<usize>)>), ConditionError> {
        let Some((token, span)) = self.tokens.get(self.at).cloned() else {
            return Err(self.unexpected("a field or a value"));
        };
        match token {
            Token::Number(n) => {
                self.at += 1;
                Ok((Value::Number(Number::Literal(n)), span, None))
            }
            Token::Text(t) => {
                self.at += 1;
                Ok((Value::Literal(t), span, None))
            }
            Token::Name(first) => self.named(first, span),
            Token::Sign(_) => Err(self.unexpected("a field or a value")),
        }
    }

    #[expect(clippy::type_complexity, reason = "as `value`")]
    fn named(
        &mut self,
        first: String,
        span: Range<usize>,
    ) -> Result<(Value, Range<usize>, Option<(String, Range<usize>)>), ConditionError> {
        self.at += 1;
        if first == "anomaly" && self.take_sign("(") {
            let Some((Token::Text(name), name_span)) = self.tokens.get(self.at).cloned() else {
                return Err(self.unexpected("the name of an anomaly, as a string"));
            };
            let Some(anomaly) = Anomaly::ALL.iter().find(|a| a.name() == name) else {
                let names = Anomaly::ALL.iter().map(|a| a.name().to_owned());
                return Err(unknown("anomaly", &name, name_span, names));
            };
            self.at += 1;
            let end = self.peek().map_or(self.end, |(_, s)| s.end);
            self.need_sign(")")?;
            return Ok((Value::Flag(Flag::Anomaly(*anomaly)), span.start..end, None));
        }
        let mut parts = vec![(first, span.clone())];
        while self.take_sign(".") {
            let Some((Token::Name(part), part_span)) = self.tokens.get(self.at).cloned() else {
                return Err(self.unexpected("a name"));
            };
            self.at += 1;
            parts.push((part, part_span));
        }
        let call = if self.is_sign("(") { parts.pop() } else { None };
        let name = parts.iter().map(|(p, _)| p.as_str()).collect::<Vec<_>>().join(".");
        let whole = span.start..parts.last().map_or(span.end, |(_, s)| s.end);
        if parts.is_empty() {
            let (call, call_span) = call.unwrap_or_default();
            return Err(unknown("function", &call, call_span, ["anomaly".to_owned()].into_iter()));
        }
        let value = match field(&name) {
            Some(Field::Number(n)) => Value::Number(n),
            Some(Field::Text(t)) => Value::Text(t),
            Some(Field::Flag(f)) => Value::Flag(f),
            None => return Err(unknown("field", &name, whole, Condition::field_names().into_iter())),
        };
        Ok((value, whole, call))
    }
}

const CALLS: [(&str, TextTest); 3] = [
    ("startsWith", TextTest::StartsWith),
    ("endsWith", TextTest::EndsWith),
    ("contains", TextTest::Contains),
];

/// A misspelt outcome would never hold, silently.
fn outcome_exists(text: Text, want: &str, span: &Range<usize>) -> Result<(), ConditionError> {
    if text != Text::LoginOutcome || want.is_empty() || OUTCOMES.contains(&want) {
        return Ok(());
    }
    Err(unknown("login outcome", want, span.clone(), OUTCOMES.iter().map(|o| (*o).to_owned())))
}

fn unknown(
    what: &str,
    name: &str,
    span: Range<usize>,
    names: impl Iterator<Item = String>,
) -> ConditionError {
    let mut best: Option<(f64, String)> = None;
    for have in names {
        let near = strsim::jaro_winkler(name, &have);
        if best.as_ref().is_none_or(|(b, _)| near > *b) {
            best = Some((near, have));
        }
    }
    // Below 0.7 the nearest name has little to do with what was meant.
    let nearest = best.filter(|(near, _)| *near >= 0.7).map(|(_, name)| name);
    let hint = nearest.as_ref().map_or(String::new(), |n| format!("; nearest is `{n}`"));
    ConditionError { span, message: format!("unknown {what} `{name}`{hint}"), nearest }
}

/// Fuzz body: any text compiles or gives an error within the text; what compiles runs.
#[doc(hidden)]
pub fn fuzz_condition(data: &[u8]) {
    struct Fixed(u8);
    impl Facts for Fixed {
        fn number(&self, _: Number) -> f64 {
            f64::from(self.0)
        }
        fn text(&self, _: Text) -> &[u8] {
            b"POST /login"
        }
        fn flag(&self, _: Flag) -> bool {
            self.0 & 1 == 1
        }
    }
    let text = String::from_utf8_lossy(data);
    match Condition::compile(&text) {
        Ok(condition) => {
            for n in [0, 1, 90] {
                condition.holds(&Fixed(n));
            }
        }
        Err(e) => {
            assert!(e.span.start <= e.span.end && e.span.end <= text.len(), "{e:?}");
            assert!(text.is_char_boundary(e.span.start) && text.is_char_boundary(e.span.end), "{e:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Table;

    impl Facts for Table {
        fn number(&self, number: Number) -> f64 {
            match number {
                Number::Confidence => 93.0,
                Number::Status => 401.0,
                Number::Points(_) => 12.5,
                Number::Value(_) => 40.0,
                Number::Entity(EntityKind::Ip, Fact::Users) => 17.0,
                _ => 0.0,
            }
        }
        fn text(&self, text: Text) -> &[u8] {
            match text {
                Text::Endpoint => b"POST /login",
                Text::Method => b"POST",
                Text::Path => b"/login",
                Text::LoginOutcome => b"failure",
                _ => b"",
            }
        }
        fn flag(&self, flag: Flag) -> bool {
            matches!(flag, Flag::Login | Flag::Anomaly(Anomaly::BareLf))
        }
    }

    #[test]
    fn conditions_hold_or_not() {
        for (text, want) in [
            ("true", true),
            ("!true", false),
            ("confidence >= 90 && login", true),
            ("confidence >= 94 && login", false),
            ("confidence >= 94 || login", true),
            ("false && true || true", true),
            ("false && (true || true)", false),
            ("true || false && false", true),
            ("!(login && status == 401)", false),
            ("90 <= confidence", true),
            ("status in [400, 401, 403]", true),
            ("status in [200]", false),
            ("method in ['GET', \"POST\"]", true),
            ("endpoint == 'POST /login'", true),
            ("endpoint != 'POST /login'", false),
            ("path.startsWith('/log') && path.endsWith('in') && path.contains('og')", true),
            ("path.contains('')", true),
            ("user_agent == ''", true),
            ("login.outcome == 'failure'", true),
            ("login.outcome in ['success', 'unknown']", false),
            ("signals.distinct_users > 12.4", true),
            ("signals.distinct_users.value == 40", true),
            ("distinct_users.value == 40", true),
            ("ip.distinct_users >= 17 && user.distinct_ips == 0", true),
            ("ip.login_failures_1m > 3", false),
            ("anomaly('bare_lf') && !anomaly(\"obs_fold\")", true),
            ("login == true && login != false && complete == false", true),
            ("confidence > ip.distinct_users", true),
            ("confidence > -1", true),
            ("confidence > 1_0.5", true),
        ] {
            let condition = Condition::compile(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(condition.holds(&Table), want, "{text}");
            assert_eq!(condition.source(), text);
        }
    }

    #[test]
    fn errors_say_where_and_what_is_near() {
        for (text, span, part, nearest) in [
            ("", 0..0, "found the end", None),
            ("confidence", 0..10, "needs a comparison", None),
            ("confidense >= 90", 0..10, "unknown field", Some("confidence")),
            ("login && ip.distinct_user > 3", 9..25, "unknown field", Some("ip.distinct_users")),
            ("user.distinct_users > 3", 0..19, "unknown field", Some("user.distinct_ips")),
            ("signals.distinct_userz > 3", 0..22, "unknown field", Some("signals.distinct_users")),
            ("login.outcome == 'failed'", 17..25, "unknown login outcome", Some("failure")),
            ("anomaly('bare_fl')", 8..17, "unknown anomaly", Some("bare_lf")),
            ("path.startswith('/')", 5..15, "unknown function", Some("startsWith")),
            ("confidence.contains('9')", 0..10, "needs a string field", None),
            ("confidence == 'high'", 14..20, "expected a number", None),
            ("method == 5", 10..11, "expected a string", None),
            ("method < 'POST'", 0..6, "no order", None),
            ("login > true", 0..5, "no order", None),
            ("login == 1", 9..10, "expected `true` or `false`", None),
            ("status in ['a']", 11..14, "left side is a number", None),
            ("login in [1]", 10..11, "left side is true or false", None),
            ("status in []", 11..12, "expected a number or a string", None),
            ("status in [1", 12..12, "expected `,`", None),
            ("'a' == 'b'", 0..10, "two constants", None),
            ("(login", 6..6, "expected `)`", None),
            ("login)", 5..6, "expected `&&`", None),
            ("login login", 6..11, "expected `&&`", None),
            ("login & login", 6..7, "did you mean `&&`", None),
            ("status = 1", 7..8, "did you mean `==`", None),
            ("path == 'abc", 8..12, "without an end", None),
            ("path == 'a\\n'", 10..12, "unknown escape", None),
            ("status == 1.2.3", 10..15, "is no number", None),
            ("päth == 1", 1..3, "unexpected `ä`", None),
            ("login &&", 8..8, "found the end", None),
        ] {
            let e = Condition::compile(text).expect_err(text);
            assert_eq!(e.span, span, "{text}: {e}");
            assert!(e.message.contains(part), "{text}: {}", e.message);
            assert_eq!(e.nearest.as_deref(), nearest, "{text}");
        }
    }

    #[test]
    fn limits() {
        let deep = |n: usize| format!("{}login{}", "(".repeat(n), ")".repeat(n));
        assert!(Condition::compile(&deep(DEPTH_MAX - 1)).is_ok());
        assert!(Condition::compile(&deep(DEPTH_MAX)).unwrap_err().message.contains("deeper"));
        assert!(Condition::compile(&"!".repeat(4000)).unwrap_err().message.contains("deeper"));
        assert!(Condition::compile(&" ".repeat(TEXT_BYTES_MAX + 1)).unwrap_err().message.contains("longer"));
        let list = |n: usize| format!("status in [{}]", vec!["1"; n].join(","));
        assert!(Condition::compile(&list(LIST_MAX)).is_ok());
        assert!(Condition::compile(&list(LIST_MAX + 1)).unwrap_err().message.contains("longer"));
        assert!(Condition::compile(&vec!["login"; 400].join("&&")).is_ok());
    }

    #[test]
    fn every_field_name_compiles() {
        for name in Condition::field_names() {
            let (a, b) = (format!("{name} == 1"), format!("{name} == \"\""));
            assert!(
                [&a, &b, &name].iter().any(|t| Condition::compile(t).is_ok()),
                "{name}: {:?}",
                Condition::compile(&a)
            );
        }
    }

    #[test]
    fn fuzz_body_on_seeds() {
        let seed = "confidence >= 90 && (login || !anomaly('bare_lf')) && path.contains(\"\\\"ü\") || status in [1, -2.5]";
        for end in 0..=seed.len() {
            fuzz_condition(&seed.as_bytes()[..end]);
            fuzz_condition(&seed.as_bytes()[end..]);
        }
        for data in
            [&b"\xff\xfe"[..], b"'\\", b"login.login.login", b".", b"in in in", b"a.(", b"anomaly(", b"1("]
        {
            fuzz_condition(data);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_handled(text in "[a-z.()!&|=<> '\"0-9\\[\\],_ü\\\\]{0,60}") {
            fuzz_condition(text.as_bytes());
        }
    }
}
