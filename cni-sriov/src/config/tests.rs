use serde_json::json;
use zerobridge_kernel::{VlanProtocol, VlanTag};
use zerobridge_proto::Guid;

use super::*;

fn parse(own: Value) -> Result<Config, CniError> {
    parse_with(own, &Args::default())
}

fn parse_with(own: Value, arguments: &Args) -> Result<Config, CniError> {
    let mut object = json!({"cniVersion": "1.1.0", "name": "blue", "type": "zerobridge"});
    object.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
    Config::parse(&NetworkConfig::decode(object.to_string().as_bytes()).unwrap(), arguments)
}

#[test]
fn every_key_of_sriov_cni_is_read() {
    let config = parse(json!({
        "deviceID": "0000:01:10.0", "vlan": 100, "vlanQoS": 3, "vlanProto": "802.1AD", "mac": "02:00:00:00:00:01",
        "spoofchk": "off", "trust": "on", "link_state": "enable", "min_tx_rate": 100, "max_tx_rate": 200,
        "logLevel": "debug", "logFile": "/tmp/x", "mtu": 9000, "pciBusID": "0000:01:10.0"
    }))
    .unwrap();
    assert_eq!(config.device, Some("0000:01:10.0".parse().unwrap()));
    let settings = &config.networks[0].settings;
    assert_eq!(settings.vlan, Some(VlanTag { id: 100, qos: 3, protocol: VlanProtocol::Dot1Ad }));
    assert_eq!((settings.spoof_check, settings.trust), (Some(false), Some(true)));
    assert_eq!(
        (settings.min_tx_rate, settings.max_tx_rate, settings.mtu),
        (Some(100), Some(200), Some(9000))
    );
}

#[test]
fn every_key_of_ib_sriov_cni_is_read() {
    let config = parse(json!({
        "deviceID": "0000:01:10.0", "link_state": "enable", "pkey": "0x8001", "rdmaIsolation": true,
        "ibKubernetesEnabled": true, "vfioPciMode": false, "guid": "02:00:00:00:00:00:00:09",
        "args": {"cni": {"mellanox.infiniband.app": "configured", "guid": "02:00:00:00:00:00:00:01"}}
    }));
    let settings = config.unwrap().networks.remove(0).settings;
    assert_eq!((settings.guid, settings.rdma), (Some(Guid(0x0200_0000_0000_0001)), RdmaSetting::Exclusive));
    let runtime = json!({"runtimeConfig": {"infinibandGUID": "02:00:00:00:00:00:00:02"},
        "args": {"cni": {"guid": "02:00:00:00:00:00:00:01"}}});
    assert_eq!(parse(runtime).unwrap().networks[0].settings.guid, Some(Guid(0x0200_0000_0000_0002)));
}

#[test]
fn an_absent_vlan_is_untouched_and_zero_removes_the_tag() {
    let vlan = |own| parse(own).unwrap().networks[0].settings.vlan;
    assert_eq!(vlan(json!({})), None);
    assert_eq!(vlan(json!({"vlan": 0, "vlanQoS": 0})), Some(VlanTag::default()));
}

#[test]
fn every_bad_value_is_named_with_what_is_allowed() {
    for (own, code, parts) in [
        (json!({"vlann": 100}), ErrorCode::UNSUPPORTED_FIELD, &["\"vlann\"", "100", "\"vlan\""][..]),
        (json!({"vlan": 4095}), ErrorCode::INVALID_CONFIG, &["vlan is 4095", "0 to 4094"]),
        (json!({"vlan": "100"}), ErrorCode::INVALID_CONFIG, &["vlan is \"100\"", "a number"]),
        (json!({"vlan": -1}), ErrorCode::INVALID_CONFIG, &["vlan is -1"]),
        (json!({"vlanQoS": 3}), ErrorCode::INVALID_CONFIG, &["vlanQoS", "vlan is not"]),
        (json!({"vlan": 0, "vlanQoS": 3}), ErrorCode::INVALID_CONFIG, &["vlanQoS", "vlan is 0"]),
        (json!({"vlan": 0, "vlanProto": "802.1ad"}), ErrorCode::INVALID_CONFIG, &["vlanProto", "vlan is 0"]),
        (json!({"vlan": 5, "vlanQoS": 8}), ErrorCode::INVALID_CONFIG, &["vlanQoS is 8", "0 to 7"]),
        (json!({"vlan": 5, "vlanProto": "qinq"}), ErrorCode::INVALID_CONFIG, &["vlanProto", "802.1ad"]),
        (json!({"mac": "02:00"}), ErrorCode::INVALID_CONFIG, &["mac is \"02:00\"", "Ethernet address"]),
        (json!({"mac": "01:00:5e:00:00:01"}), ErrorCode::INVALID_CONFIG, &["01:00:5e:00:00:01", "unicast"]),
        (
            json!({"spoofchk": "yes"}),
            ErrorCode::INVALID_CONFIG,
            &["spoofchk is \"yes\"", "\"on\" or \"off\""],
        ),
        (json!({"trust": true}), ErrorCode::INVALID_CONFIG, &["trust is true", "\"on\" or \"off\""]),
        (json!({"link_state": "up"}), ErrorCode::INVALID_CONFIG, &["link_state", "auto"]),
        (json!({"mtu": 10}), ErrorCode::INVALID_CONFIG, &["mtu is 10", "68"]),
        (json!({"allmulti": true}), ErrorCode::INVALID_CONFIG, &["allmulti", "trust"]),
        (json!({"promisc": true, "trust": "off"}), ErrorCode::INVALID_CONFIG, &["promisc", "trust"]),
        (json!({"promisc": "on"}), ErrorCode::INVALID_CONFIG, &["promisc is \"on\"", "true or false"]),
        (json!({"rdma": "softroce"}), ErrorCode::INVALID_CONFIG, &["rdma is \"softroce\"", "\"exclusive\""]),
        (json!({"rdmaDeviceName": "a/b"}), ErrorCode::INVALID_CONFIG, &["rdmaDeviceName", "63 letters"]),
        (
            json!({"rdmaDeviceName": "rdma0", "rdma": "shared"}),
            ErrorCode::INVALID_CONFIG,
            &["rdmaDeviceName", "\"rdma0\"", "\"shared\""],
        ),
        (json!({"vlanTrunk": "9-4"}), ErrorCode::INVALID_CONFIG, &["vlanTrunk is \"9-4\"", "2,4-9"]),
        (json!({"vlanTrunk": "2", "vlan": 5}), ErrorCode::INVALID_CONFIG, &["vlanTrunk", "vlan is 5"]),
        (json!({"args": {"cni": {"guid": "02:00"}}}), ErrorCode::INVALID_CONFIG, &["args.cni.guid", "02:00"]),
        (json!({"pkey": "x"}), ErrorCode::INVALID_CONFIG, &["pkey is \"x\"", "0x8001"]),
        (
            json!({"rdmaIsolation": true, "rdma": "off"}),
            ErrorCode::INVALID_CONFIG,
            &["rdmaIsolation", "rdma is \"off\""],
        ),
        (
            json!({"ibKubernetesEnabled": true, "args": {"cni": {"guid": "02:00:00:00:00:00:00:01"}}}),
            ErrorCode::INVALID_CONFIG,
            &["ibKubernetesEnabled", "mellanox.infiniband.app", "absent"],
        ),
        (
            json!({"runtimeConfig": {"infinibandGUID": "00:00:00:00:00:00:00:00"}}),
            ErrorCode::INVALID_CONFIG,
            &["infinibandGUID", "not all zero"],
        ),
        (
            json!({"min_tx_rate": 20, "runtimeConfig": {"bandwidth": {"egressRate": 10_000_000}}}),
            ErrorCode::INVALID_CONFIG,
            &["min_tx_rate", "max_tx_rate 10"],
        ),
        (json!({"min_tx_rate": 9, "max_tx_rate": 8}), ErrorCode::INVALID_CONFIG, &["min_tx_rate", "8"]),
        (json!({"deviceID": 5}), ErrorCode::INVALID_CONFIG, &["deviceID is 5"]),
        (
            json!({"deviceID": "mlx5_core.sf.4"}),
            ErrorCode::INVALID_CONFIG,
            &["\"mlx5_core.sf.4\"", "scalable function"],
        ),
        (json!({"deviceID": "eth0"}), ErrorCode::INVALID_CONFIG, &["deviceID", "\"eth0\""]),
        (
            json!({"resourceName": "vf"}),
            ErrorCode::INVALID_CONFIG,
            &["resourceName is \"vf\"", "zerobridge.io/vf"],
        ),
        (
            json!({"ipam": {"type": "bin/dhcp"}}),
            ErrorCode::INVALID_CONFIG,
            &["ipam.type is \"bin/dhcp\"", "zerobridge-ipam"],
        ),
        (
            json!({"readyWhenFull": "yes"}),
            ErrorCode::INVALID_CONFIG,
            &["readyWhenFull is \"yes\"", "true or false"],
        ),
        (json!({"networks": []}), ErrorCode::INVALID_CONFIG, &["networks is []"]),
        (json!({"networks": [7]}), ErrorCode::INVALID_CONFIG, &["networks[0] is 7"]),
        (
            json!({"networks": [{"name": "a"}]}),
            ErrorCode::INVALID_CONFIG,
            &["networks[0].resourceName is missing"],
        ),
        (
            json!({"networks": [{"name": "a", "resourceName": "x/y", "vlan": 9999}]}),
            ErrorCode::INVALID_CONFIG,
            &["networks[0].vlan is 9999"],
        ),
        (
            json!({"vlan": 1, "networks": [{"name": "a", "resourceName": "x/y"}]}),
            ErrorCode::INVALID_CONFIG,
            &["\"vlan\" stands beside \"networks\""],
        ),
        (
            json!({"ipam": {"type": "host-local"}, "networks": [{"name": "a", "resourceName": "x/y"}]}),
            ErrorCode::INVALID_CONFIG,
            &["\"ipam\" stands beside \"networks\""],
        ),
        (
            json!({"networks": [{"name": "a", "resourceName": "x/y"}, {"name": "b", "resourceName": "x/y"}]}),
            ErrorCode::INVALID_CONFIG,
            &["resourceName \"x/y\""],
        ),
    ] {
        let error = parse(own.clone()).unwrap_err();
        assert_eq!(error.code, code, "{own}");
        for part in parts {
            assert!(error.msg.contains(part), "{own}: {error} does not say {part}");
        }
    }
}

#[test]
fn what_sriov_cni_reads_as_unset_is_unset() {
    let empty =
        json!({"mac": "", "spoofchk": "", "trust": "", "link_state": "", "vlan": null, "max_tx_rate": null});
    assert_eq!(parse(empty).unwrap().networks[0].settings, VfSettings::default());
}

#[test]
fn a_trusted_vf_may_ask_for_more_frames_and_false_is_as_absent() {
    let settings = |own| parse(own).unwrap().networks[0].settings.clone();
    let both =
        settings(json!({"allmulti": true, "promisc": true, "trust": "on", "vlan": 0, "vlanTrunk": "2,4-9"}));
    assert!(both.all_multicast && both.promiscuous);
    assert_eq!(both.vlan_trunk.unwrap().to_string(), "2,4-9");
    assert_eq!(settings(json!({"allmulti": false, "promisc": false})), VfSettings::default());
}

#[test]
fn of_a_pods_rate_and_its_networks_the_lower_one_counts() {
    for (own, asked, rate) in [
        (json!({}), 10, Some(10)),
        (json!({"max_tx_rate": 0}), 10, Some(10)),
        (json!({"max_tx_rate": 5}), 10, Some(5)),
        (json!({"max_tx_rate": 50}), 10, Some(10)),
        (json!({"max_tx_rate": 50}), 0, Some(50)),
    ] {
        let mut own = own;
        own["runtimeConfig"] = json!({"bandwidth": {"egressRate": asked * 1_000_000}});
        assert_eq!(parse(own.clone()).unwrap().networks[0].settings.max_tx_rate, rate, "{own}");
    }
}

#[test]
fn keys_of_an_internal_state_cannot_be_injected() {
    for key in ["OrigVfState", "Master", "VFID", "ContIFNames"] {
        let error = parse(json!({key: {}})).unwrap_err();
        assert_eq!(error.code, ErrorCode::UNSUPPORTED_FIELD);
    }
}

#[test]
fn a_mac_of_the_call_goes_before_that_of_the_network_and_is_checked_alike() {
    let arguments = Args::parse("MAC=02:00:00:00:00:02").unwrap();
    let config = parse_with(json!({"mac": "02:00:00:00:00:01"}), &arguments).unwrap();
    assert_eq!(config.networks[0].settings.mac, Some("02:00:00:00:00:02".parse().unwrap()));
    let multicast = Args::parse("MAC=01:00:5e:00:00:01").unwrap();
    parse_with(json!({}), &multicast).unwrap_err();
}

#[test]
fn the_device_of_the_plugin_object_goes_before_that_of_the_runtime() {
    let both = json!({"deviceID": "01:10.0", "runtimeConfig": {"deviceID": "0000:01:10.2"}});
    assert_eq!(parse(both).unwrap().device, Some("0000:01:10.0".parse().unwrap()));
    let runtime = json!({"runtimeConfig": {"deviceID": "0000:01:10.2"}});
    assert_eq!(parse(runtime).unwrap().device, Some("0000:01:10.2".parse().unwrap()));
    // Multus writes an empty text when the pod was given too few devices.
    assert_eq!(parse(json!({"deviceID": ""})).unwrap().device, None);
}

#[test]
fn paths_are_absolute() {
    let with = |own: Value| {
        let mut object = json!({"cniVersion": "1.1.0", "name": "blue"});
        object.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
        Paths::parse(&NetworkConfig::decode(object.to_string().as_bytes()).unwrap())
    };
    assert_eq!(with(json!({})).unwrap(), Paths::default());
    assert_eq!(with(json!({"sysfs": "/x"})).unwrap().sysfs, std::path::PathBuf::from("/x"));
    assert!(with(json!({"stateDir": "x"})).unwrap_err().msg.contains("stateDir is \"x\""));
}

#[test]
fn the_manifests_configuration_is_valid() {
    let list: Value =
        serde_json::from_str(include_str!("../../../manifests/node/10-zerobridge.conflist")).unwrap();
    let mut plugin = list["plugins"][0].clone();
    // What the runtime does to each plugin of a list.
    plugin["name"] = list["name"].clone();
    plugin["cniVersion"] = list["cniVersion"].clone();
    let config = NetworkConfig::decode(plugin.to_string().as_bytes()).unwrap();
    let networks = Config::parse(&config, &Args::default()).unwrap().networks;
    let names: Vec<_> = networks.iter().map(|network| network.resource_name.as_deref().unwrap()).collect();
    assert_eq!(names, ["zerobridge.io/vf", "zerobridge.io/vf-green"]);
}
