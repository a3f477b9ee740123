package main

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

const (
	fewPods  = 50
	manyPods = 100
)

// benchWorkload measures a Deployment from 0 to 50 pods and back, and a node with 100 pods.
func benchWorkload(ctx context.Context, r *report, _ options) error {
	return withNode(ctx, func(n *node) error {
		if err := n.ready(ctx); err != nil {
			return err
		}
		if _, _, err := onePod(ctx, n.client, "first"); err != nil { // the default account is there
			return err
		}
		if err := n.deploy(ctx); err != nil {
			return err
		}
		own, err := n.processes()
		if err != nil {
			return err
		}
		for _, step := range []struct {
			name   string
			pods   int
			target string
		}{
			{"Deployment 0 -> 50, all Ready", fewPods, "<= 1/2 (9.7-17.6 s)"}, {"Deployment 50 -> 0, all gone", 0, "<= 1/2 (7.8-15.7 s)"},
			{"Deployment 0 -> 100, all Ready", manyPods, ""},
		} {
			used, began := measure(own).CPU, time.Now()
			if err := n.scale(ctx, step.pods); err != nil {
				return fmt.Errorf("%s, after %s: %w", step.name, time.Since(began), err)
			}
			r.add(step.name, "s", time.Since(began).Seconds(), step.target)
			r.add(step.name+", CPU of keelson", "s", (measure(own).CPU - used).Seconds(), "")
		}
		var ups []time.Duration
		for i := range podRounds / 3 {
			up, _, err := onePod(ctx, n.client, fmt.Sprintf("beside-%d", i))
			if err != nil {
				return err
			}
			ups = append(ups, up)
		}
		r.add("pod create to Running beside 100 pods, p50 of 10", "ms", quantile(ups, 0.5), "flat")
		if err := settled(ctx, own); err != nil {
			return err
		}
		quiet, err := idle(ctx, own, idleWindow)
		if err != nil {
			return err
		}
		r.add("idle CPU with 100 pods, all processes", "% of a core", quiet/10, "<= 2")
		r.add("memory with 100 pods, all processes", "MB PSS", float64(measure(own).PSS)/1e6, "")
		return n.scale(ctx, 0)
	})
}

func (n *node) deploy(ctx context.Context) error {
	none, label := int32(0), map[string]string{"app": "many"}
	_, err := n.client.AppsV1().Deployments("default").Create(ctx, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "many"},
		Spec: appsv1.DeploymentSpec{Replicas: &none, Selector: &metav1.LabelSelector{MatchLabels: label},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: label}, Spec: helloSpec()}}}, metav1.CreateOptions{})
	return err
}

// scale sets the Deployment's replicas and waits until so many pods are Ready and no others are there.
func (n *node) scale(ctx context.Context, replicas int) error {
	ctx, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	pods, err := n.client.CoreV1().Pods("default").List(ctx, metav1.ListOptions{LabelSelector: "app=many"})
	if err != nil {
		return err
	}
	ready := map[string]bool{}
	for _, p := range pods.Items {
		ready[p.Name] = isReady(&p)
	}
	w, err := n.client.CoreV1().Pods("default").Watch(ctx, metav1.ListOptions{LabelSelector: "app=many", ResourceVersion: pods.ResourceVersion})
	if err != nil {
		return err
	}
	defer w.Stop()
	patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, replicas)
	if _, err := n.client.AppsV1().Deployments("default").Patch(ctx, "many", types.MergePatchType, patch, metav1.PatchOptions{}, "scale"); err != nil {
		return err
	}
	return await(ctx, w, func(e watch.Event) bool {
		pod, ok := e.Object.(*corev1.Pod)
		if !ok {
			return false
		}
		if ready[pod.Name] = isReady(pod); e.Type == watch.Deleted {
			delete(ready, pod.Name)
		}
		sum := 0
		for _, is := range ready {
			if is {
				sum++
			}
		}
		return sum == replicas && len(ready) == replicas
	})
}

func isReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
