//! What a program counts, in the text format of Prometheus.

/// The samples of one answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    samples: Vec<(String, f64)>,
}

impl Metrics {
    /// Lines `NAME{LABELS} VALUE`; everything else is left out.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        };
        Self { samples: text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect() }
    }

    /// The sum of all samples of `name` that have each of `labels`; `None` if there is none.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let matches = |series: &str| {
            let (own, set) = series.split_once('{').unwrap_or((series, ""));
            let has = |(label, value): &(&str, &str)| {
                set.trim_end_matches('}').split(',').any(|pair| pair == format!("{label}=\"{value}\""))
            };
            own == name && labels.iter().all(has)
        };
        let found: Vec<f64> =
            self.samples.iter().filter(|(series, _)| matches(series)).map(|sample| sample.1).collect();
        if found.is_empty() { None } else { Some(found.iter().sum()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_chosen_by_name_and_labels_and_added_up() {
        let text = "# HELP devices Devices.\n# TYPE devices gauge\ndevices{pool=\"a/x\",state=\"healthy\"} 3\n\
                    devices{pool=\"a/x\",state=\"unhealthy\"} 1\ndevices_all 9\n# EOF\n";
        let metrics = Metrics::parse(text);
        assert_eq!(metrics.sum("devices", &[]), Some(4.0));
        assert_eq!(metrics.sum("devices", &[("state", "healthy"), ("pool", "a/x")]), Some(3.0));
        assert_eq!(metrics.sum("devices", &[("state", "health")]), None);
        assert_eq!(metrics.sum("devices_all", &[]), Some(9.0));
        assert_eq!(metrics.sum("device", &[]), None);
    }
}
