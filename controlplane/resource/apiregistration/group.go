package apiregistration

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/validation/path"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration/v1/helper"
	"k8s.io/kube-aggregator/pkg/apis/apiregistration/validation"

	"keelson.dev/keelson/controlplane/resource"
)

// Group is apiregistration.k8s.io.
func Group() resource.Group {
	return resource.Group{
		Name:        apiregistrationv1.GroupName,
		Versions:    []string{"v1"},
		AddToScheme: []func(*runtime.Scheme) error{apiregistrationv1.AddToScheme},
		Kinds:       []resource.Kind{apiService()},
	}
}

func apiService() resource.Kind {
	return resource.Of(resource.Kind{
		Kind: "APIService", Plural: "apiservices", Categories: []string{"api-extensions"},
		HasStatus: true, ForbidUnconditionalUpdate: true, ValidateName: path.ValidatePathSegmentName, // "v1." is one
		New:     func() runtime.Object { return &apiregistrationv1.APIService{} },
		NewList: func() runtime.Object { return &apiregistrationv1.APIServiceList{} },
		Columns: []resource.Column{
			resource.Col("Service", "string", "The reference to the service that hosts this API endpoint.", 0, service),
			resource.Col("Available", "string", "Whether this service is available.", 0, available),
		},
	}, resource.Rules[*apiregistrationv1.APIService]{
		Default: func(s *apiregistrationv1.APIService) {
			if s.Spec.Service != nil {
				apiregistrationv1.SetDefaults_ServiceReference(s.Spec.Service)
			}
		},
		PrepareForCreate: func(_ context.Context, s *apiregistrationv1.APIService) { localIsAvailable(s) },
		PrepareForUpdate: func(_ context.Context, s, _ *apiregistrationv1.APIService) { localIsAvailable(s) },
		Validate: func(ctx context.Context, s *apiregistrationv1.APIService) field.ErrorList {
			return checked(s, func(in *apiregistration.APIService) field.ErrorList { return validation.ValidateAPIService(ctx, in) })
		},
		PrepareStatusUpdate: func(_ context.Context, s, old *apiregistrationv1.APIService) {
			metav1.ResetObjectMetaForStatus(&s.ObjectMeta, &old.ObjectMeta)
		},
		ValidateStatusUpdate: func(ctx context.Context, s, old *apiregistrationv1.APIService) field.ErrorList {
			return checked(s, func(in *apiregistration.APIService) field.ErrorList {
				return checked(old, func(was *apiregistration.APIService) field.ErrorList {
					return validation.ValidateAPIServiceStatusUpdate(ctx, in, was)
				})
			})
		},
	})
}

// localIsAvailable: what this server serves itself needs nobody to look whether it answers.
func localIsAvailable(s *apiregistrationv1.APIService) {
	if s.Spec.Service == nil && !helper.IsAPIServiceConditionTrue(s, apiregistrationv1.Available) {
		helper.SetAPIServiceCondition(s, helper.NewLocalAvailableAPIServiceCondition())
	}
}

// checked runs one of the library's checks, which are written for its own internal type.
func checked(s *apiregistrationv1.APIService, check func(*apiregistration.APIService) field.ErrorList) field.ErrorList {
	var in apiregistration.APIService
	if err := apiregistrationv1.Convert_v1_APIService_To_apiregistration_APIService(s, &in, nil); err != nil {
		return field.ErrorList{field.InternalError(nil, err)}
	}
	return check(&in)
}

func service(s *apiregistrationv1.APIService) any {
	if s.Spec.Service == nil {
		return "Local"
	}
	return s.Spec.Service.Namespace + "/" + s.Spec.Service.Name
}

func available(s *apiregistrationv1.APIService) any {
	c := helper.GetAPIServiceConditionByType(s, apiregistrationv1.Available)
	switch {
	case c == nil:
		return string(apiregistrationv1.ConditionUnknown)
	case c.Status != apiregistrationv1.ConditionTrue && c.Reason != "":
		return fmt.Sprintf("%s (%s)", c.Status, c.Reason)
	}
	return string(c.Status)
}
