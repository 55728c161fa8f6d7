//go:build go1.21

package main

import "slices"

// sortNumbers sorts as one does in Go now.
func sortNumbers(numbers []uint64) { slices.Sort(numbers) }
