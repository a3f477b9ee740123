// Package rbac describes the group rbac.authorization.k8s.io and holds the two checks that keep a user from
// granting more than they hold: escalation (roles) and binding (role bindings).
//
// Both checks run before anything is stored, with the privileges of the requesting user; members of system:masters
// pass, and so does whoever the authorizer allows the verb "escalate" on the role or "bind" on the role referred to.
package rbac
