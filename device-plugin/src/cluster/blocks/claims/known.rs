//! What has been heard of IPClaims and of pods, as it is now.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use zerobridge_blocks::{IPClaim, PodName};

use super::super::follow::News;

/// Objects by namespace and name, of which there is one at a time.
#[derive(Debug)]
pub(super) struct Known<K> {
    /// `None` until all were heard of.
    objects: Option<BTreeMap<PodName, K>>,
    is_news: bool,
}

impl<K> Default for Known<K> {
    fn default() -> Self {
        Self { objects: None, is_news: false }
    }
}

impl<K: kube::Resource> Known<K> {
    pub(super) fn hear(&mut self, news: News<K>) {
        self.is_news = true;
        match news {
            News::All(objects) => {
                self.objects = Some(objects.into_iter().map(|object| (name_of(&object), object)).collect());
            }
            // A kind that is not defined has no objects.
            News::Undefined => self.objects = Some(BTreeMap::new()),
            News::Changed(object) => {
                self.objects.get_or_insert_default().insert(name_of(&object), object);
            }
            News::Deleted(object) => {
                self.objects.get_or_insert_default().remove(&name_of(&object));
            }
        }
    }

    /// Whoever asks next was not told before.
    pub(super) fn tell_again(&mut self) {
        self.is_news = true;
    }

    /// Everything, if there is news since this was last asked.
    pub(super) fn news(&mut self) -> Option<&BTreeMap<PodName, K>> {
        std::mem::take(&mut self.is_news).then_some(self.objects.as_ref()).flatten()
    }
}

impl Known<IPClaim> {
    pub(super) fn is_empty(&self) -> bool {
        self.objects.as_ref().is_none_or(BTreeMap::is_empty)
    }
}

/// The pods that have, or may get, containers. One that has ended keeps its object and gets none any more.
pub(super) fn alive(pods: &BTreeMap<PodName, Pod>) -> BTreeSet<PodName> {
    let has_ended = |pod: &Pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        matches!(phase, Some("Succeeded" | "Failed"))
    };
    pods.iter().filter(|(_, pod)| !has_ended(pod)).map(|(name, _)| name.clone()).collect()
}

fn name_of<K: kube::Resource>(object: &K) -> PodName {
    let metadata = object.meta().clone();
    PodName { namespace: metadata.namespace.unwrap_or_default(), name: metadata.name.unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, phase: &str) -> Pod {
        let object = json!({"metadata": {"namespace": "team", "name": name}, "status": {"phase": phase}});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn what_is_heard_is_told_once_and_whole() {
        let mut pods = Known::default();
        assert_eq!(pods.news(), None, "nothing was heard");
        pods.hear(News::All(vec![pod("a", "Running"), pod("b", "Succeeded")]));
        let alive = |pods: &mut Known<Pod>| {
            let alive = pods.news().map(super::alive)?;
            Some(alive.into_iter().map(|pod| pod.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(alive(&mut pods), Some(vec!["team/a".to_owned()]));
        assert_eq!(alive(&mut pods), None, "no news");
        pods.hear(News::Changed(pod("c", "Pending")));
        pods.hear(News::Deleted(pod("a", "Failed")));
        assert_eq!(alive(&mut pods), Some(vec!["team/c".to_owned()]));
        pods.hear(News::Undefined);
        assert_eq!(alive(&mut pods), Some(vec![]));
    }
}
