package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
)

const (
	serviceRounds    = 10
	serviceEndpoints = 10
	writers          = 16
	dnsClients       = 8
	dnsWindow        = 5 * time.Second
)

// benchService measures how long a Service takes to answer, and its endpoint to change, beside 10, 1,000 and 10,000 others of
// ten endpoints each; and the cluster DNS.
func benchService(ctx context.Context, r *report, _ options) error {
	return withNode(ctx, func(n *node) error {
		if err := n.ready(ctx); err != nil {
			return err
		}
		address, err := n.backend(ctx)
		if err != nil {
			return err
		}
		made := 0
		for _, count := range []int{10, 1000, 10000} {
			if err := n.fill(ctx, made, count); err != nil {
				return fmt.Errorf("%d Services: %w", count, err)
			}
			made = count
			if err := n.changes(ctx, r, count, address); err != nil {
				return fmt.Errorf("beside %d Services: %w", count, err)
			}
			if count == 1000 {
				if err := n.dns(ctx, r); err != nil {
					return fmt.Errorf("DNS: %w", err)
				}
			}
		}
		return nil
	})
}

// backend starts a pod that answers and returns its address.
func (n *node) backend(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	w, err := n.client.CoreV1().Pods("default").Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", "backend").String()})
	if err != nil {
		return "", err
	}
	defer w.Stop()
	if err := create(ctx, n.client, helloPod("backend")); err != nil {
		return "", err
	}
	var address string
	err = await(ctx, w, func(e watch.Event) bool {
		pod, ok := e.Object.(*corev1.Pod)
		if ok && isReady(pod) {
			address = pod.Status.PodIP
		}
		return address != ""
	})
	return address, err
}

func service(name string) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}}
}

func slice(service string, addresses ...string) *discoveryv1.EndpointSlice {
	name, port, protocol, ready := "http", int32(80), corev1.ProtocolTCP, true
	s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Name: service, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &port, Protocol: &protocol}}}
	for _, a := range addresses {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}})
	}
	return s
}

// fill makes Services with endpoints that nobody has.
func (n *node) fill(ctx context.Context, from, to int) error {
	var next atomic.Int64
	next.Store(int64(from))
	group, ctx := errgroup.WithContext(ctx)
	for range writers {
		group.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= to {
					return nil
				}
				name := fmt.Sprintf("other-%d", i)
				var addresses []string
				for e := range serviceEndpoints {
					addresses = append(addresses, netip.AddrFrom4([4]byte{172, 16 + byte(i>>12), byte(i >> 4), byte(i<<4) + byte(e) + 1}).String())
				}
				if _, err := n.client.CoreV1().Services("default").Create(ctx, service(name), metav1.CreateOptions{}); err != nil {
					return err
				}
				if _, err := n.client.DiscoveryV1().EndpointSlices("default").Create(ctx, slice(name, addresses...), metav1.CreateOptions{}); err != nil {
					return err
				}
			}
		})
	}
	return group.Wait()
}

// changes measures new Services and new endpoints by the first connection that is answered.
func (n *node) changes(ctx context.Context, r *report, others int, address string) error {
	var created, pointed []time.Duration
	own, err := n.processes()
	if err != nil {
		return err
	}
	// The rules of the others must be in force, or their work is measured.
	if _, _, err := n.change(ctx, fmt.Sprintf("settle-%d", others), address); err != nil {
		return err
	}
	used := measure(own).CPU
	for i := range serviceRounds {
		c, p, err := n.change(ctx, fmt.Sprintf("new-%d-%d", others, i), address)
		if err != nil {
			return err
		}
		created, pointed = append(created, c), append(pointed, p)
	}
	used = measure(own).CPU - used
	beside := fmt.Sprintf(" beside %d Services, p50 of %d", others, serviceRounds)
	targets := map[int]string{10: "<= 200", 1000: "<= 200", 10000: "<= 1000"}
	r.add("Service created to first answer"+beside, "ms", quantile(created, 0.5), targets[others])
	r.add("endpoint added to first answer"+beside, "ms", quantile(pointed, 0.5), targets[others])
	r.add("CPU of keelson per change"+beside, "ms", milli(used)/serviceRounds/3, "flat")
	return nil
}

// change makes one Service of running pods, and one whose endpoint comes later.
func (n *node) change(ctx context.Context, name, address string) (created, pointed time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	selecting := service(name)
	selecting.Spec.Selector = map[string]string{"app": "hello"}
	began := time.Now()
	made, err := n.client.CoreV1().Services("default").Create(ctx, selecting, metav1.CreateOptions{})
	if err != nil {
		return 0, 0, err
	}
	if err := answers(ctx, made.Spec.ClusterIP); err != nil {
		return 0, 0, err
	}
	created = time.Since(began)
	if made, err = n.client.CoreV1().Services("default").Create(ctx, service(name+"-manual"), metav1.CreateOptions{}); err != nil {
		return 0, 0, err
	}
	if _, err := n.client.DiscoveryV1().EndpointSlices("default").Create(ctx, slice(name+"-manual"), metav1.CreateOptions{}); err != nil {
		return 0, 0, err
	}
	began = time.Now()
	if _, err := n.client.DiscoveryV1().EndpointSlices("default").Update(ctx, slice(name+"-manual", address), metav1.UpdateOptions{}); err != nil {
		return 0, 0, err
	}
	err = answers(ctx, made.Spec.ClusterIP)
	return created, time.Since(began), err
}

// answers waits for the first connection that is taken.
func answers(ctx context.Context, address string) error {
	dialer := net.Dialer{Timeout: 20 * time.Millisecond}
	for {
		conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(address, "80"))
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(time.Millisecond): // asking is the measurement
		}
	}
}

// dns asks for a Service's name from a few clients, one question at a time each.
func (n *node) dns(ctx context.Context, r *report) error {
	kube, err := n.client.CoreV1().Services("kube-system").Get(ctx, "kube-dns", metav1.GetOptions{})
	if err != nil {
		return err
	}
	own, err := n.processes()
	if err != nil {
		return err
	}
	var asked atomic.Int64
	var group sync.WaitGroup
	errs := make(chan error, dnsClients)
	used, began := measure(own).CPU, time.Now()
	for i := range dnsClients {
		group.Go(func() {
			question := new(dns.Msg).SetQuestion(fmt.Sprintf("other-%d.default.svc.cluster.local.", i), dns.TypeA)
			client := &dns.Client{Timeout: 2 * time.Second}
			conn, err := client.Dial(net.JoinHostPort(kube.Spec.ClusterIP, "53"))
			for err == nil && time.Since(began) < dnsWindow {
				var answer *dns.Msg
				if answer, _, err = client.ExchangeWithConnContext(ctx, question, conn); err == nil && len(answer.Answer) != 1 {
					err = fmt.Errorf("%s: %d answers", question.Question[0].Name, len(answer.Answer))
				}
				asked.Add(1)
			}
			if err != nil {
				errs <- err
				return
			}
			conn.Close()
		})
	}
	group.Wait()
	took, total := time.Since(began), float64(asked.Load())
	used = measure(own).CPU - used
	select {
	case err := <-errs:
		return err
	default:
	}
	r.add("DNS, Service names, 8 clients", "queries/s", total/took.Seconds(), "")
	r.add("DNS, CPU of keelson per query", "us", float64(used.Microseconds())/total, "")
	return nil
}
