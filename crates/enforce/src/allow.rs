//! A set of addresses given as networks.

use std::net::IpAddr;

use ipnet::IpNet;
use offpath_types::Host;

/// Networks merged into sorted ranges, so that a look-up is a binary search however long the list is.
///
/// IPv4 networks are held as IPv4-mapped IPv6, like [`Host`].
// Invariant: `ranges` is sorted by start; ranges are disjoint and not adjacent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressSet {
    ranges: Vec<(u128, u128)>,
}

impl AddressSet {
    /// Makes the union of `nets`.
    pub fn new<'a>(nets: impl IntoIterator<Item = &'a IpNet>) -> Self {
        let mut all: Vec<(u128, u128)> = nets.into_iter().map(range).collect();
        all.sort_unstable();
        let mut ranges: Vec<(u128, u128)> = Vec::with_capacity(all.len());
        for (start, end) in all {
            match ranges.last_mut() {
                Some(last) if start <= last.1.saturating_add(1) => last.1 = last.1.max(end),
                _ => ranges.push((start, end)),
            }
        }
        Self { ranges }
    }

    /// Tells whether `host` is in the set.
    pub fn contains(&self, host: Host) -> bool {
        let at = u128::from_be_bytes(*host.octets());
        self.overlaps_range(at, at)
    }

    /// Tells whether any address of `net` is in the set.
    pub fn overlaps(&self, net: &IpNet) -> bool {
        let (start, end) = range(net);
        self.overlaps_range(start, end)
    }

    /// Tells whether any address of the prefix of `host` ([`Host::prefix`]) is in the set.
    pub fn overlaps_prefix_of(&self, host: Host) -> bool {
        let start = u128::from_be_bytes(*host.prefix().octets());
        let len = u32::from(host.prefix_len()) + if host.is_v4() { 96 } else { 0 };
        self.overlaps_range(start, start | (u128::MAX >> len))
    }

    fn overlaps_range(&self, start: u128, end: u128) -> bool {
        let after = self.ranges.partition_point(|r| r.0 <= end);
        after > 0 && self.ranges.get(after - 1).is_some_and(|r| r.1 >= start)
    }
}

fn range(net: &IpNet) -> (u128, u128) {
    let number = |ip: IpAddr| u128::from_be_bytes(*Host::from(ip).octets());
    let start = number(net.network());
    let bits = net.max_prefix_len() - net.prefix_len();
    // A /0 of IPv6 has 128 host bits, which no shift of a u128 can express.
    let hosts = if bits >= 128 { u128::MAX } else { (1u128 << bits) - 1 };
    (start, start | hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Host {
        Host::from(text.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn membership_and_overlap() {
        let nets: Vec<IpNet> =
            ["192.0.2.0/25", "192.0.2.128/25", "10.0.0.1/32", "2001:db8::/32", "10.0.0.0/31"]
                .iter()
                .map(|n| n.parse().unwrap())
                .collect();
        let set = AddressSet::new(&nets);
        for (address, want) in [
            ("192.0.2.0", true),
            ("192.0.2.127", true),
            ("192.0.2.255", true),
            ("192.0.3.0", false),
            ("192.0.1.255", false),
            ("10.0.0.0", true),
            ("10.0.0.1", true),
            ("10.0.0.2", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
            ("::1", false),
        ] {
            assert_eq!(set.contains(host(address)), want, "{address}");
        }
        for (net, want) in
            [("192.0.0.0/16", true), ("10.0.0.2/31", false), ("0.0.0.0/0", true), ("2001:db8::/128", true)]
        {
            assert_eq!(set.overlaps(&net.parse().unwrap()), want, "{net}");
        }
        assert!(set.overlaps_prefix_of(host("10.0.0.200")));
        assert!(!set.overlaps_prefix_of(host("10.0.1.200")));
        assert!(set.overlaps_prefix_of(host("2001:db8:1::9")));
        let everything = AddressSet::new(&["::/0".parse().unwrap()]);
        assert!(everything.contains(host("192.0.2.1")) && everything.contains(host("ff::")));
        assert!(!AddressSet::default().contains(host("192.0.2.1")));
    }
}
