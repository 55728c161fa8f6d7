//go:build !go1.21

package main

import "sort"

// sortNumbers sorts as one had to before Go 1.21, with a call for each comparison.
func sortNumbers(numbers []uint64) {
	sort.Slice(numbers, func(a, b int) bool { return numbers[a] < numbers[b] })
}
