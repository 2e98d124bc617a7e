//! The machine's network as data: what Windows' Host Compute Network (HCN) is asked for, and what it says.
//!
//! The machine is on the "Default Switch", which every Windows 10 and 11 with Hyper-V has: Windows translates addresses there, hands them
//! out, and passes questions about names on. A Windows Server has none; a network of the same kind is made there, once. The machine has an
//! endpoint on it, and finds on its kernel's command line which address that has.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use serde_json::json;
use slipway_vm::DriverError;

/// The same on every Windows.
pub const DEFAULT_SWITCH: u128 = 0xc08c_b7b8_9b3c_408e_8e30_5e16_a3ae_b444;
/// Ours, where that is missing.
pub const OWN_NETWORK: u128 = 0x2f0c_93a5_52d1_4a4e_9c2b_7d1b_5a6f_8e10;
/// Windows answers names and hands out addresses.
const DNS_AND_DHCP: u32 = 1 | 2;

/// What Windows gave the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adapter {
    /// The endpoint's id.
    pub endpoint: u128,
    /// As Windows writes it.
    pub mac_address: String,
    /// Address, length of the prefix and gateway, where Windows says them.
    pub address: Option<(Ipv4Addr, u8, Ipv4Addr)>,
}

/// As HCS's document has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NetworkAdapter<'a> {
    endpoint_id: String,
    mac_address: &'a str,
}

impl Adapter {
    pub(crate) fn in_document(&self) -> NetworkAdapter<'_> {
        NetworkAdapter { endpoint_id: guid(self.endpoint), mac_address: &self.mac_address }
    }

    /// The word for the agent. The gateway also answers questions about names.
    pub fn cmdline(&self) -> String {
        match self.address {
            Some((address, prefix, gateway)) => format!("slipway.net={address}/{prefix},{gateway},{gateway}"),
            // Then the network hands one out.
            None => "slipway.net=dhcp".into(),
        }
    }
}

/// A number as Windows writes ids.
pub fn guid(id: u128) -> String {
    let digits = format!("{id:032x}");
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

/// The id of a machine's endpoint: always the same, so that what a crash left is found and taken away.
pub fn endpoint_id(machine: u128) -> u128 {
    // Of version 8 and the usual variant: an id that its maker chose.
    machine & !(0xf << 76) & !(0x3 << 62) | (0x8 << 76) | (0x2 << 62)
}

/// What makes our own network.
pub fn own_network() -> String {
    let version = json!({"Major": 2, "Minor": 0});
    json!({"SchemaVersion": version, "Owner": "slipway", "Name": "slipway", "Type": "ICS", "Flags": DNS_AND_DHCP})
        .to_string()
}

/// What makes the endpoint of a machine.
pub fn endpoint(network: u128, machine: &str) -> String {
    let version = json!({"Major": 2, "Minor": 16});
    json!({
        "SchemaVersion": version, "Owner": "slipway", "Name": machine, "HostComputeNetwork": guid(network), "Policies": [],
    })
    .to_string()
}

/// What asks for an endpoint's properties.
pub const QUERY: &str = r#"{"SchemaVersion":{"Major":2,"Minor":0}}"#;

/// In the words of both versions of the schema: which one is answered in differs by Windows.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Properties {
    mac_address: String,
    #[serde(default)]
    ip_configurations: Vec<IpConfiguration>,
    #[serde(default)]
    routes: Vec<Route>,
    #[serde(default, rename = "IPAddress")]
    ip_address: Option<Ipv4Addr>,
    #[serde(default)]
    prefix_length: Option<u8>,
    #[serde(default)]
    gateway_address: Option<Ipv4Addr>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct IpConfiguration {
    #[serde(alias = "IPAddress")]
    ip_address: String,
    prefix_length: u8,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Route {
    next_hop: String,
    #[serde(default)]
    destination_prefix: String,
}

/// What Windows says of the endpoint that it made.
///
/// # Errors
/// [`DriverError::Io`] for what is no endpoint.
pub fn adapter(endpoint: u128, properties: &str) -> Result<Adapter, DriverError> {
    let said: Properties = serde_json::from_str(properties).map_err(|source| DriverError::Io {
        act: "read what Windows says of the machine's network".into(),
        source: source.into(),
    })?;
    let newer = || {
        let mut configurations = said.ip_configurations.iter();
        let (address, prefix) =
            configurations.find_map(|c| Some((c.ip_address.parse().ok()?, c.prefix_length)))?;
        let mut ways = said.routes.iter().filter(|route| route.destination_prefix == "0.0.0.0/0");
        Some((address, prefix, ways.find_map(|route| route.next_hop.parse().ok())?))
    };
    let older = || Some((said.ip_address?, said.prefix_length?, said.gateway_address?));
    let address = newer().or_else(older).filter(|(_, prefix, _)| (1..=30).contains(prefix));
    Ok(Adapter { endpoint, address, mac_address: said.mac_address })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(properties: &str) -> Adapter {
        adapter(1, properties).expect("an endpoint")
    }

    #[test]
    fn an_address_is_understood_in_both_of_windows_schemas() {
        let newer = r#"{"ID":"x","MacAddress":"00-15-5D-01-02-03","Flags":0,
            "IpConfigurations":[{"IpAddress":"fe80::1","PrefixLength":64},{"IpAddress":"172.28.80.5","PrefixLength":20}],
            "Routes":[{"NextHop":"fe80::2","DestinationPrefix":"::/0"},{"NextHop":"172.28.80.1","DestinationPrefix":"0.0.0.0/0"}]}"#;
        let older = r#"{"ID":"x","MacAddress":"00-15-5D-01-02-03","IPAddress":"172.28.80.5","PrefixLength":20,
            "GatewayAddress":"172.28.80.1","State":1}"#;
        for properties in [newer, older] {
            let adapter = said(properties);
            assert_eq!(adapter.mac_address, "00-15-5D-01-02-03");
            assert_eq!(adapter.cmdline(), "slipway.net=172.28.80.5/20,172.28.80.1,172.28.80.1");
        }
    }

    #[test]
    fn without_an_address_the_network_is_asked_for_one() {
        for properties in [
            r#"{"MacAddress":"00-15-5D-01-02-03"}"#,
            r#"{"MacAddress":"00-15-5D-01-02-03","IPAddress":"172.28.80.5","PrefixLength":20}"#,
            r#"{"MacAddress":"00-15-5D-01-02-03","IpConfigurations":[{"IpAddress":"172.28.80.5","PrefixLength":32}],
                "Routes":[{"NextHop":"172.28.80.1","DestinationPrefix":"0.0.0.0/0"}]}"#,
        ] {
            assert_eq!(said(properties).cmdline(), "slipway.net=dhcp", "{properties}");
        }
        assert!(adapter(1, r#"{"ErrorCode":5}"#).is_err(), "no endpoint");
    }

    #[test]
    fn ids_are_windows_own_and_always_the_same() {
        assert_eq!(guid(DEFAULT_SWITCH), "c08cb7b8-9b3c-408e-8e30-5e16a3aeb444");
        let of_ones = guid(endpoint_id(u128::MAX));
        assert_eq!(of_ones, "ffffffff-ffff-8fff-bfff-ffffffffffff", "what an id of this kind looks like");
    }

    #[test]
    fn what_is_asked_for_is_as_it_was() {
        let made: serde_json::Value =
            serde_json::from_str(&endpoint(DEFAULT_SWITCH, "slipway-default")).expect("JSON");
        assert_eq!(
            made,
            json!({
                "SchemaVersion": {"Major": 2, "Minor": 16}, "Owner": "slipway", "Name": "slipway-default",
                "HostComputeNetwork": "c08cb7b8-9b3c-408e-8e30-5e16a3aeb444", "Policies": []
            })
        );
        let made: serde_json::Value = serde_json::from_str(&own_network()).expect("JSON");
        assert_eq!((&made["Type"], &made["Flags"]), (&"ICS".into(), &3.into()));
    }
}
