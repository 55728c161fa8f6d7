module stallbench/peer-go

go 1.19
