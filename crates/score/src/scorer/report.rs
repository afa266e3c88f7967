//! What a report says of everything that is remembered.

use offpath_types::{EntityKey, EntityKind, Host, IdentityHash};

use super::{Scorer, UNSUSPICIOUS};
use crate::entity::Entity;
use crate::summary::{EndpointSummary, EntitySummary, LoginSummary, ScoreSummary};

impl Scorer {
    /// Returns what a report says; visits every entity, so call it at the end or now and then.
    pub fn summary(&self) -> ScoreSummary {
        let text = |t: &[u8]| String::from_utf8_lossy(t).into_owned();
        let mut endpoints = Vec::new();
        let mut logins = Vec::new();
        let mut entities = Vec::new();
        for (key, endpoint) in self.endpoints.iter() {
            let login = endpoint.login.as_deref();
            endpoints.push(EndpointSummary {
                endpoint: text(&endpoint.text),
                requests: u64::from(endpoint.entity.total),
                errors: endpoint.errors,
                logins: login.map_or(0, |l| l.attempts),
                failures: login.map_or(0, |l| l.failures),
            });
            if let Some(login) = login {
                logins.push(LoginSummary {
                    endpoint: text(&endpoint.text),
                    configured: login.configured,
                    success_from: login.source(0),
                    failure_from: login.source(1),
                    attempts: login.attempts,
                    successes: login.successes,
                    failures: login.failures,
                    unknown: login.unknown,
                    failure_ratio_baseline: login.baseline(&self.config),
                });
            }
            entities.extend(entity_summary(EntityKey::Endpoint(key as u64), &endpoint.entity));
        }
        let mut live = Vec::new();
        for (kind, table) in EntityKind::ALL.into_iter().zip(&self.tables) {
            live.push((kind, table.len() as u64));
            entities.extend(table.iter().filter_map(|(key, e)| entity_summary(entity_key(kind, key), e)));
        }
        live.push((EntityKind::Endpoint, self.endpoints.len() as u64));
        endpoints.sort_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.endpoint.cmp(&b.endpoint)));
        endpoints.truncate(20);
        logins.sort_by(|a, b| b.attempts.cmp(&a.attempts).then_with(|| a.endpoint.cmp(&b.endpoint)));
        logins.truncate(50);
        entities.sort_by(|a: &EntitySummary, b| {
            (b.confident > 0, b.confidence, b.confident)
                .cmp(&(a.confident > 0, a.confidence, a.confident))
                .then_with(|| a.key.cmp(&b.key))
        });
        entities.truncate(50);
        for entity in &mut entities {
            entity.text = match entity.key {
                EntityKey::Endpoint(hash) => {
                    let found = self.endpoints.find(u128::from(hash)).map(|at| self.endpoints.get(at));
                    found.map_or_else(|| entity.key.to_string(), |endpoint| text(&endpoint.text))
                }
                key => key.to_string(),
            };
        }
        ScoreSummary { endpoints, logins, entities, live }
    }
}

fn entity_key(kind: EntityKind, key: u128) -> EntityKey {
    let bytes = key.to_be_bytes();
    match kind {
        EntityKind::Ip => EntityKey::Ip(Host::from_v6(bytes)),
        EntityKind::Prefix => EntityKey::Prefix(Host::from_v6(bytes)),
        EntityKind::Session => EntityKey::Session(IdentityHash(bytes)),
        EntityKind::User => EntityKey::User(IdentityHash(bytes)),
        EntityKind::Fingerprint => EntityKey::Fingerprint(key as u64),
        EntityKind::Endpoint => EntityKey::Endpoint(key as u64),
    }
}

fn entity_summary(key: EntityKey, entity: &Entity) -> Option<EntitySummary> {
    (entity.peak >= UNSUSPICIOUS).then(|| EntitySummary {
        key,
        kind: key.kind(),
        text: String::new(),
        confidence: entity.peak,
        confident: u64::from(entity.confident),
        requests: u64::from(entity.total),
    })
}
