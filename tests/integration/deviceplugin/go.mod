module edge-inference/tests/integration/deviceplugin

go 1.24

require (
	google.golang.org/grpc v1.72.1
	k8s.io/kubelet v0.30.0
	sigs.k8s.io/yaml v1.4.0
)

require (
	github.com/gogo/protobuf v1.3.2 // indirect
	golang.org/x/net v0.35.0 // indirect
	golang.org/x/sys v0.30.0 // indirect
	golang.org/x/text v0.22.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20250218202821-56aae31c358a // indirect
	google.golang.org/protobuf v1.36.5 // indirect
)
