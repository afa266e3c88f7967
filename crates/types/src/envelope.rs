//! What frames were wrapped in.

/// A kind of tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TunnelKind {
    /// VXLAN and VXLAN-GPE; the id is the VNI.
    Vxlan = 1,
    /// GENEVE; the id is the VNI.
    Geneve,
    /// GRE, over UDP too; the id is the key, where there is one.
    Gre,
    /// ERSPAN types I to III; the id is the session, where there is one.
    Erspan,
    /// GTP-U; the id is the tunnel endpoint id, that of one direction.
    GtpU,
    /// IP in IP: 4 in 4, 4 in 6, 6 in 4, 6 in 6. No id.
    IpInIp,
    /// MPLS; the id is the label at the bottom of the stack.
    Mpls,
    /// A PPPoE session; the id is the session's.
    Pppoe,
    /// Teredo. No id.
    Teredo,
    /// EtherIP and Ethernet in IPv6. No id.
    EtherIp,
    /// Network service header; the id is the service path.
    Nsh,
    /// PPTP's GRE; the id is the call, that of one direction.
    Pptp,
    /// Cisco FabricPath. No id.
    FabricPath,
}

impl TunnelKind {
    const ALL: [Self; 13] = [
        Self::Vxlan,
        Self::Geneve,
        Self::Gre,
        Self::Erspan,
        Self::GtpU,
        Self::IpInIp,
        Self::Mpls,
        Self::Pppoe,
        Self::Teredo,
        Self::EtherIp,
        Self::Nsh,
        Self::Pptp,
        Self::FabricPath,
    ];

    /// Returns the name used in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
            Self::Gre => "gre",
            Self::Erspan => "erspan",
            Self::GtpU => "gtp-u",
            Self::IpInIp => "ip-in-ip",
            Self::Mpls => "mpls",
            Self::Pppoe => "pppoe",
            Self::Teredo => "teredo",
            Self::EtherIp => "etherip",
            Self::Nsh => "nsh",
            Self::Pptp => "pptp",
            Self::FabricPath => "fabricpath",
        }
    }
}

/// The VLAN tags around a packet and the innermost tunnel that it came through; 8 bytes.
///
/// For records. What keeps flows apart is [`crate::TunnelId`], which leaves out what names one direction only.
// Invariant, from the lowest bit: 32 bits of tunnel id, 12 of the outer VLAN, 12 of the inner VLAN, 4 of the kind
// (0: none), 1 that is set where the tunnel has an id.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Envelope(u64);

const VLAN_AT: u32 = 32;
const INNER_AT: u32 = 44;
const KIND_AT: u32 = 56;
const HAS_ID: u64 = 1 << 60;
const VLAN_MASK: u64 = 0xfff;

impl Envelope {
    /// A packet without tags and tunnels.
    pub const NONE: Self = Self(0);

    /// Notes a tunnel: the innermost counts.
    #[must_use]
    pub const fn with_tunnel(self, kind: TunnelKind, id: Option<u32>) -> Self {
        let vlans = self.0 & (VLAN_MASK << VLAN_AT | VLAN_MASK << INNER_AT);
        let id = match id {
            Some(id) => HAS_ID | id as u64,
            None => 0,
        };
        Self(vlans | id | (kind as u64) << KIND_AT)
    }

    /// Notes a VLAN tag (0 is none): the first one is the outer, the last one the inner.
    #[must_use]
    pub const fn with_vlan(self, vlan: u16) -> Self {
        let vlan = vlan as u64 & VLAN_MASK;
        if vlan == 0 {
            return self;
        }
        if self.0 >> VLAN_AT & VLAN_MASK == 0 {
            return Self(self.0 | vlan << VLAN_AT);
        }
        Self(self.0 & !(VLAN_MASK << INNER_AT) | vlan << INNER_AT)
    }

    /// Forgets the VLAN tags: another Ethernet header begins.
    #[must_use]
    pub const fn without_vlans(self) -> Self {
        Self(self.0 & !(VLAN_MASK << VLAN_AT | VLAN_MASK << INNER_AT))
    }

    /// Returns the VLAN of the innermost Ethernet frame, the outer one of two.
    pub const fn vlan(self) -> Option<u16> {
        vlan_of(self.0 >> VLAN_AT)
    }

    /// Returns the inner VLAN of that frame, where it has two tags or more.
    pub const fn vlan_inner(self) -> Option<u16> {
        vlan_of(self.0 >> INNER_AT)
    }

    /// Returns the innermost tunnel, with its id where it has one.
    pub fn tunnel(self) -> Option<(TunnelKind, Option<u32>)> {
        let kind = (self.0 >> KIND_AT & 0xf).checked_sub(1)?;
        let kind = *TunnelKind::ALL.get(kind as usize)?;
        Some((kind, (self.0 & HAS_ID != 0).then_some(self.0 as u32)))
    }

    /// Tells whether there is nothing to record.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

const fn vlan_of(bits: u64) -> Option<u16> {
    match (bits & VLAN_MASK) as u16 {
        0 => None,
        vlan => Some(vlan),
    }
}

impl std::fmt::Debug for Envelope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Envelope")
            .field("vlan", &self.vlan())
            .field("vlan_inner", &self.vlan_inner())
            .field("tunnel", &self.tunnel())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_found_again() {
        assert!(Envelope::NONE.is_none() && Envelope::NONE.tunnel().is_none());
        for (i, kind) in TunnelKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, i + 1, "{kind:?}");
            for id in [None, Some(0), Some(u32::MAX)] {
                let e = Envelope::NONE.with_vlan(4095).with_tunnel(TunnelKind::Mpls, Some(9));
                let e = e.with_tunnel(kind, id).with_vlan(0).with_vlan(1).with_vlan(42);
                assert_eq!((e.tunnel(), e.vlan(), e.vlan_inner()), (Some((kind, id)), Some(4095), Some(42)));
                let e = e.without_vlans();
                assert_eq!((e.tunnel(), e.vlan(), e.vlan_inner()), (Some((kind, id)), None, None));
            }
        }
    }
}
