// Package stats tells what pods and the node use, from CRI's statistics: /stats/summary, /metrics/resource and
// /metrics/cadvisor under the names that metrics-server, the HPA and dashboards know.
//
// Nothing is sampled in advance: a scrape asks the runtime once and answers; volumes are measured as volume.Manager.Measure says. Usage per second, which CRI may leave
// out, is the difference to the scrape before. Source.mu is a leaf.
package stats
