//! Links, addresses and routes: the multicast groups of rtnetlink, heard by a task.

use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::link::{LinkAttribute, LinkEvent, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{MulticastGroup, new_multicast_connection};
use tracing::{info, warn};

use super::DeviceEvent;
use super::pending::Pending;
use crate::rtnl::{used_address, used_routes};

const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv6Route,
];

/// Adds the changes that a subscription hears, and subscribes anew when it breaks. Never ends.
pub(super) async fn hear<F: Future<Output = ()>>(
    mut subscription: io::Result<F>,
    subscribe: impl Fn() -> io::Result<F>,
    pending: Arc<Pending>,
    pause: Duration,
) {
    loop {
        match subscription {
            Ok(broken) => {
                broken.await;
                warn!(?pause, "the rtnetlink subscription broke; subscribing again after a pause");
            }
            Err(error) => {
                let error: &dyn Error = &error;
                warn!(error, ?pause, "cannot subscribe to rtnetlink; trying again after a pause");
            }
        }
        tokio::time::sleep(pause).await;
        subscription = subscribe();
        if subscription.is_ok() {
            info!("rtnetlink is heard again");
            pending.add(DeviceEvent::Overrun);
        }
    }
}

/// Subscribes in the calling thread's network namespace. The future adds what is heard, and ends when the subscription
/// breaks. To be called inside a runtime.
pub(super) fn subscribe(pending: Arc<Pending>) -> io::Result<impl Future<Output = ()> + Send> {
    let (connection, _, mut messages) = new_multicast_connection(&GROUPS)?;
    Ok(async move {
        let mut connection = pin!(connection);
        loop {
            tokio::select! {
                () = &mut connection => return,
                message = messages.recv() => {
                    let Ok((message, _)) = message else { return };
                    if let Some(change) = change_in(&message.payload) {
                        pending.add(change);
                    }
                }
            }
        }
    })
}

/// What a message says that anybody wants to know.
fn change_in(payload: &NetlinkPayload<RouteNetlinkMessage>) -> Option<DeviceEvent> {
    use RouteNetlinkMessage::{DelAddress, DelLink, DelRoute, NewAddress, NewLink, NewRoute};
    match payload {
        NetlinkPayload::InnerMessage(NewLink(link) | DelLink(link)) => {
            concerns_the_link(link).then_some(DeviceEvent::Link)
        }
        NetlinkPayload::InnerMessage(NewAddress(address) | DelAddress(address)) => {
            used_address(address).map(|_| DeviceEvent::Address)
        }
        NetlinkPayload::InnerMessage(NewRoute(route) | DelRoute(route)) => {
            (!used_routes(route).is_empty()).then_some(DeviceEvent::Route)
        }
        NetlinkPayload::Overrun(_) => Some(DeviceEvent::Overrun),
        _ => None,
    }
}

/// Whether a message is about the link itself, and not about its place in a bridge, the radio behind it, its offloads or
/// the multicast groups that it announces anew.
fn concerns_the_link(message: &LinkMessage) -> bool {
    message.header.interface_family == AddressFamily::Unspec
        && !message.attributes.iter().any(|attribute| {
            matches!(
                attribute,
                LinkAttribute::Wireless(_)
                    | LinkAttribute::Event(
                        LinkEvent::Features | LinkEvent::NotifyPeers | LinkEvent::IgmpResend
                    )
            )
        })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn what_says_nothing_new_of_a_link_is_passed_over() {
        let link = |family, attribute: Option<LinkAttribute>| {
            let mut message = LinkMessage::default();
            message.header.interface_family = family;
            message.attributes.extend(attribute);
            change_in(&NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(message)))
        };
        let event = |event| Some(LinkAttribute::Event(event));
        for (family, attribute, expected) in [
            (AddressFamily::Unspec, None, Some(DeviceEvent::Link)),
            (AddressFamily::Unspec, event(LinkEvent::BondingFailover), Some(DeviceEvent::Link)),
            (AddressFamily::Unspec, event(LinkEvent::Features), None),
            (AddressFamily::Bridge, None, None),
        ] {
            assert_eq!(link(family, attribute.clone()), expected, "{family:?} {attribute:?}");
        }
        assert_eq!(change_in(&NetlinkPayload::Overrun(Vec::new())), Some(DeviceEvent::Overrun));
    }

    #[test]
    fn a_subscription_that_broke_is_made_again_and_the_gap_is_told() {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let pending = Arc::new(Pending::default());
        let tries = Cell::new(0);
        // The first one breaks, the second cannot be made, the third lasts.
        let subscribe = || {
            tries.set(tries.get() + 1);
            if tries.get() == 1 {
                Err(io::Error::from(io::ErrorKind::OutOfMemory))
            } else {
                Ok(broken_after(tries.get()))
            }
        };
        let hearing = hear(Ok(broken_after(0)), subscribe, Arc::clone(&pending), Duration::ZERO);
        let told = runtime.block_on(async {
            tokio::select! {
                () = hearing => unreachable!("it never ends"),
                change = pending.next() => change,
            }
        });
        assert_eq!((told, tries.get()), (DeviceEvent::Overrun, 2));
    }

    /// A subscription that breaks at once, or never.
    async fn broken_after(tries: u32) {
        if tries > 0 {
            std::future::pending::<()>().await;
        }
    }
}
